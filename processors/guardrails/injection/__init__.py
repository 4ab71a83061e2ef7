"""Prompt injection and jailbreak, direct and through retrieved context; canary tokens that come back."""
