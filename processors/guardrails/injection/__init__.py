"""Injection and jailbreak: texts that try to speak to the model in somebody else's name.

text ─► views (as seen, unmasked, decoded) ─► families of patterns ─┐
   └──► windows ─► linear head over embedding, n-grams, families ───┴─► score, findings in the original text
"""
