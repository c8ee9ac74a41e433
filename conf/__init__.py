"""The Hydra configuration tree; installed as ``tokenizers_vq.conf``."""
