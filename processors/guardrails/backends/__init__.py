"""Production models behind the port: Detoxify, sentence-transformers, a transformer NER. Extra `models`; torch only here."""
