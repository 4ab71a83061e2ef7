"""Linear heads over the shared embedding: what a text is, by weights small enough to ship and to read.

    text ─► fold, unmask ─► [embedding | hashed words and letters | named marks] ─► logistic ─► probability

Weights are float16 arrays in an .npz beside a JSON card that holds their hash, what they were trained on, and how they did on
sources they had not seen. `bench/training` makes both.
"""
