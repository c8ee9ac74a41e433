"""Train a tokenizer: ``python train.py backbone=cnn2d_f16 quantizer=fsq data=wheels``.

Every option is in ``conf/train.yaml`` and the groups beside it; ``python train.py --help`` lists
them, ``-m`` sweeps over comma-separated values, ``--debug`` shows tracebacks.
"""

import sys

from tokenizers_vq.training.run import main

if __name__ == "__main__":
    sys.exit(main())
