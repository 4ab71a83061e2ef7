"""The guardrails: what the texts of a call are worth. Samples come in, findings, scores and redacted texts go out.

    content ─► unseal ─► pool of spawned processes ─► Suite.assess ─► scored event, redacted transcript
                             (phi, toxicity, injection, grounding, relevance, guideline, bias)

Detectors are pure: texts in, verdicts out, in batches (`ports.py`). They never see a key, a clock or a socket, and their
errors never quote a text. Only the engines may import the pool; anybody may import a detector.
"""
