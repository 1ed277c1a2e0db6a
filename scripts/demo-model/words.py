"""Writes models/demo.json: what the demo model can draw, and the words of prompts that mean something to it.

    python words.py --work build/demo-model ../../models/demo.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from captions import CaptionWriter
from data import PACKAGES, Concept, _fetch, read_concepts

# Words around the thing that is asked for. Training put such words everywhere, so that they are ignored.
FUNCTION_WORDS = """a an the this that these those some any one i me my you your we us our it its he she they and or of in on at to
for from with without by as is are be was were has have do does can could would should will please like want need let make made
draw paint sketch render show give create generate see look very really so just there here up down out over under near not no"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    labels = _fetch(PACKAGES["labels"], arguments.work / "labels") / "en/data.json"
    tags = {entry["label"]: entry.get("tags", []) for entry in json.loads(labels.read_text(encoding="utf-8"))}
    concepts = [Concept(names[0], names, tags[label], 0) for label, names in read_concepts()]
    words = CaptionWriter(concepts, [], 0).vocabulary() | set(FUNCTION_WORDS.split())
    content = {"concepts": [concept.name for concept in concepts], "words": sorted(words)}
    arguments.output.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
