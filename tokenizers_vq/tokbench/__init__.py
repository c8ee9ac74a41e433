"""Text and faces as TokBench judges them: is it still legible, is it still the same person?

Reference:
    Wu et al., TokBench: Evaluating Your Visual Tokenizer before Visual Generation, 2025,
    https://arxiv.org/abs/2505.18142.
    Differs from it: reconstructions never pass through a JPEG file; every score has its n and an
    interval; the models that read and compare can be exchanged, and are part of a score's name.
"""
