"""Protected health information: the 18 identifiers of the HIPAA Safe Harbor rule, found and redacted."""
