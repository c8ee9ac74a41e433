"""Receipts: what a tokenizer, ours or a foreign one, keeps of the contract, measured on itself."""
