"""Writes small PyTorch .bin files for the tests of the restricted reader (src/checkpoint/formats/torch.ts).

    python scripts/reference/torch_cases.py test/fixtures/extra

Needs torch. torch-cases.json says what each file holds: {file: {tensor: {type, shape, values}}}, or {file: null} for files
that the reader must refuse.
"""
import collections
import json
import pathlib
import sys

import torch

TYPES = {
    torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "bool",
    torch.float8_e4m3fn: "f8_e4m3", torch.float8_e5m2: "f8_e5m2",
}


def describe(tensors):
    return {
        name: {"type": TYPES[t.dtype], "shape": list(t.shape), "values": [float(v) for v in t.detach().flatten().double()]}
        for name, t in tensors.items()
    }


def main(folder):
    folder = pathlib.Path(folder)
    torch.manual_seed(0)
    # A module's state dict is an OrderedDict with a _metadata attribute, which becomes a BUILD instruction.
    module = torch.nn.Sequential(
        collections.OrderedDict(conv=torch.nn.Conv2d(2, 3, 3), norm=torch.nn.BatchNorm2d(3), linear=torch.nn.Linear(4, 2))
    )
    base = torch.arange(24, dtype=torch.float32)
    every_type = {str(dtype).split(".")[1]: torch.tensor([[0, 1], [1, 0]]).to(dtype) for dtype in TYPES}
    readable = {
        "torch-state-dict.bin": module.half().state_dict(),
        "torch-types.bin": {
            **every_type,
            "parameter": torch.nn.Parameter(base[:6].reshape(2, 3)),
            # Views share the storage of `base`; torch writes it once.
            "view": base[6:18].reshape(3, 4),
            "shared": base,
            "scalar": torch.tensor(2.5),
        },
        "torch-strided.bin": {
            "transposed": base.reshape(4, 6).t(),
            "sparse": base.reshape(4, 6)[1:, ::2],
            "channels_last": base.reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
            "one_column": base.reshape(4, 6)[:, 5:],
        },
    }
    cases = {}
    for file, tensors in readable.items():
        torch.save(tensors, folder / file)
        cases[file] = describe(tensors)
    refused = {
        "torch-expanded.bin": {"weight": base[:1].expand(4, 6)},
        "torch-training.bin": {"model": {"weight": base[:2].clone()}, "step": 3},
        "torch-module.bin": torch.nn.Linear(1, 1),
    }
    for file, value in refused.items():
        torch.save(value, folder / file)
        cases[file] = None
    legacy = {**readable["torch-types.bin"], **readable["torch-strided.bin"]}
    legacy = {name: tensor for name, tensor in legacy.items() if not name.startswith("float8")}  # newer than the format
    torch.save(legacy, folder / "torch-legacy.bin", _use_new_zipfile_serialization=False)
    cases["torch-legacy.bin"] = describe(legacy)
    (folder / "torch-cases.json").write_text(json.dumps({"torch": torch.__version__, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
