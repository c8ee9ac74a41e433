"""Measure the classic codecs of a protocol for sound on a folder, without a tokenizer.

python eval/speech_codecs.py --data FOLDER --protocol speech_16k --limit 20 --out outputs/codecs
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation.entry import evaluate_and_report
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.evaluation.sound_evaluation import sound_dataset
from tokenizers_vq.evaluation.sound_protocol import SoundProtocol


def main(argv: list[str] | None = None) -> int:
    """Measure, write the result and its page, print the table; 2 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="synthetic_audio", help="folder, or a name in conf/data")
    parser.add_argument("--protocol", default="speech_fast", help="name in conf/protocol")
    parser.add_argument("--limit", type=int, default=None, help="measure that many clips")
    parser.add_argument("--out", type=Path, default=Path("outputs/speech_codecs"))
    options = parser.parse_args(argv)
    try:
        protocol = load_protocol(options.protocol)
        if not isinstance(protocol, SoundProtocol):
            raise ConfigError(
                f"speech_codecs: expected a protocol for sound; got '{options.protocol}'. "
                "Name speech_fast or speech_16k."
            )
        if options.limit is not None:
            protocol = dataclasses.replace(protocol, limit=options.limit)
        dataset, name = sound_dataset(options.data, protocol)
        evaluate_and_report(None, dataset, protocol, options.out, data_name=name)
    except (ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
