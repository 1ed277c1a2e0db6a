"""Records what diffusers computes with random LoRA files on the tiny checkpoints.

    python scripts/reference/lora_cases.py processors test/fixtures     # diffusers 0.24.0 without PEFT
    python scripts/reference/lora_cases.py peft test/fixtures           # diffusers as in README.md, peft 0.21.0

The first writes what the LoRA training scripts of Kandinsky 2.2 save (LoRAAttnAddedKVProcessor, LoRAAttnProcessor,
save_attn_procs), which later releases no longer read; the second files in the names of PEFT and kohya, and calls with
several at once, for which it gives the first files PEFT's names. Each call has the inputs of a recorded one
(test/fixtures/traces/components). diffusers 0.24.0 wants names that huggingface_hub 1 no longer
has, and never uses them here.
"""
import json
import pathlib
import sys

import huggingface_hub
import huggingface_hub.constants
import torch
from safetensors.torch import load_file, save_file

UNET, PRIOR = "kandinsky-2-2-decoder/unet", "kandinsky-2-2-prior/prior"
TRACES = {UNET: "unet22-t981-8x8", PRIOR: "prior-k22-t999", "kandinsky-3/unet": "unet3-t981-16x8",
          "kandinsky-5-t2i/transformer": "k5-transformer-t2i-t1000-8x8-l5"}


def random_(tensor, generator, scale):
    with torch.no_grad():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)


def forward(model, fixtures, network):
    inputs = load_file(fixtures / "traces" / "components" / f"{TRACES[network]}.safetensors")
    given = {name[len("input."):]: value for name, value in inputs.items() if name.startswith("input.")}
    if network == UNET:
        call = lambda: model(given["sample"], given["timestep"], None, added_cond_kwargs={"image_embeds": given["image_embeds"]})[0]
    else:
        if "hidden_states" in given and given["hidden_states"].ndim == 5:  # Kandinsky 5
            height, width = (size // 2 for size in given["hidden_states"].shape[2:4])
            given["visual_rope_pos"] = [torch.arange(1), torch.arange(height), torch.arange(width)]
            given["text_rope_pos"] = torch.arange(given["encoder_hidden_states"].shape[1])
            given["scale_factor"] = (1.0, 1.0, 1.0)
        call = lambda: model(**given, return_dict=False)[0]
    with torch.no_grad():
        return call().contiguous()


def processors(fixtures, out):
    huggingface_hub.HfFolder = huggingface_hub.cached_download = huggingface_hub.constants.hf_cache_home = "."
    sys.modules["peft"] = None
    from diffusers import PriorTransformer, UNet2DConditionModel
    from diffusers.models.attention_processor import LoRAAttnAddedKVProcessor, LoRAAttnProcessor
    results = {}
    for network, model_class, folder, is_safe, seed in (
            (UNET, UNet2DConditionModel, "decoder", True, 1), (PRIOR, PriorTransformer, "prior", False, 2)):
        model = model_class.from_pretrained(fixtures / "checkpoints" / network)
        generator = torch.Generator().manual_seed(seed)
        layers = {}
        for name in model.attn_processors:
            attention = model.get_submodule(name[: -len(".processor")])
            if network == UNET:
                layers[name] = LoRAAttnAddedKVProcessor(attention.to_q.out_features, attention.add_k_proj.in_features, rank=2)
            else:
                layers[name] = LoRAAttnProcessor(attention.to_q.out_features, rank=2)
            for parameter in layers[name].parameters():
                random_(parameter, generator, 0.25)
        model.set_attn_processor(layers)
        model.save_attn_procs(out / folder, safe_serialization=is_safe)
        model = model_class.from_pretrained(fixtures / "checkpoints" / network)
        model.load_attn_procs(out / folder)
        results[folder] = forward(model, fixtures, network)
    save_file(results, out / "processors.safetensors")


def peft_names(path):
    """A file of attention processors in the names that PEFT has for its matrices."""
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
    names = {".down.weight": ".lora_A.weight", ".up.weight": ".lora_B.weight", "_lora.": ".", ".processor.": ".", "to_out.lora": "to_out.0.lora"}
    result = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        result[name] = tensor
    return result


def random_adapter(model, targets, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in model.named_modules():
        if not isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) or not any(name.endswith(target) for target in targets):
            continue
        shape = module.weight.shape
        down, up = (rank, *shape[1:]), (shape[0], rank, *[1] * (len(shape) - 2))
        tensors[f"{name}.lora_A.weight"] = torch.empty(down)
        tensors[f"{name}.lora_B.weight"] = torch.empty(up)
        fan_in = shape[1:].numel()
        random_(tensors[f"{name}.lora_A.weight"], generator, (1 / fan_in) ** 0.5)
        random_(tensors[f"{name}.lora_B.weight"], generator, 0.3)
    return tensors


def load_adapter(model, adapter, name, alpha):
    """In PEFT's names; diffusers takes alphas only beside names with a prefix."""
    alphas = {f"model.{key}".replace(".lora_A.weight", ".alpha"): alpha for key in adapter if ".lora_A." in key}
    state = {f"model.{key}": tensor for key, tensor in adapter.items()}
    model.load_lora_adapter(state, prefix="model", network_alphas=alphas, adapter_name=name)


def peft(fixtures, out):
    import diffusers
    load = lambda name, network: getattr(diffusers, name).from_pretrained(fixtures / "checkpoints" / network)
    results = {}
    recorded = load_file(out / "processors.safetensors")

    unet = load("UNet2DConditionModel", UNET)
    # PEFT: convolutions and the embedding of time, too, and an alpha that is not the rank.
    targets = ("to_k", "add_v_proj", "to_out.0", "resnets.0.conv1", "resnets.1.time_emb_proj", "conv_shortcut")
    adapter = random_adapter(unet, targets, 3, 3)
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 2, "target_modules": list(targets)}
    (out / "peft").mkdir(exist_ok=True)
    save_file({f"base_model.model.{name}": tensor.half() for name, tensor in adapter.items()}, out / "peft" / "adapter_model.safetensors")
    (out / "peft" / "adapter_config.json").write_text(json.dumps(config) + "\n")
    adapter = {name: tensor.half().float() for name, tensor in adapter.items()}
    load_adapter(unet, adapter, "peft", 2.0)
    results["peft"] = forward(unet, fixtures, UNET)

    # kohya: other names for matrices that are the same, and an alpha for each.
    kohya = {}
    for name, tensor in random_adapter(unet, ("attentions.0.to_q.base_layer", "attentions.0.to_q"), 2, 4).items():
        module, part = name.replace(".base_layer", "").split(".lora_")
        flat = "lora_unet_" + module.replace(".", "_")
        kohya[f"{flat}.lora_{'down' if part[0] == 'A' else 'up'}.weight"] = tensor
        kohya[f"{flat}.alpha"] = torch.tensor(0.5)
    unet = load("UNet2DConditionModel", UNET)
    modules = {name.replace(".", "_"): name for name, _ in unet.named_modules()}
    own = {}
    for name, tensor in kohya.items():
        flat, part = name[len("lora_unet_"):].split(".", 1)
        if part != "alpha":
            own[f"{modules[flat]}.lora_{'A' if 'down' in part else 'B'}.weight"] = tensor
    save_file(kohya, out / "kohya.safetensors")
    load_adapter(unet, own, "kohya", 0.5)
    results["kohya"] = forward(unet, fixtures, UNET)

    # Several at once. One alone checks PEFT's names against the release that wrote the file.
    unet.load_lora_adapter(peft_names(out / "decoder" / "pytorch_lora_weights.safetensors"), prefix=None, adapter_name="decoder")
    unet.set_adapters(["decoder"], [1.0])
    difference = (forward(unet, fixtures, UNET) - recorded["decoder"]).abs().max().item()
    assert difference < 1e-5, difference
    unet.set_adapters(["decoder", "kohya"], [0.6, -1.5])
    results["decoder*0.6+kohya*-1.5"] = forward(unet, fixtures, UNET)

    for name, network, targets in (("Kandinsky3UNet", "kandinsky-3/unet", ("to_q", "to_v")),
                                   ("Kandinsky5Transformer3DModel", "kandinsky-5-t2i/transformer", ("to_query", "to_key", "out_layer"))):
        model = load(name, network)
        prefix = network.split("/")[1]
        adapter = random_adapter(model, targets, 2, 5)
        file = "kandinsky-3" if prefix == "unet" else "kandinsky-5"
        save_file({f"{prefix}.{name}": tensor.half() for name, tensor in adapter.items()}, out / f"{file}.safetensors")
        own = {name: tensor.half().float() for name, tensor in adapter.items()}
        if hasattr(model, "load_lora_adapter"):
            model.load_lora_adapter(dict(own), prefix=None)
        else:  # Kandinsky 3's UNet has no loader in diffusers; the same sum, merged
            for key in own:
                if ".lora_A." in key:
                    module = model.get_submodule(key[: -len(".lora_A.weight")])
                    module.weight.data += own[key.replace("lora_A", "lora_B")] @ own[key]
        results[file] = forward(model, fixtures, network)
    save_file(results, out / "peft.safetensors")


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    {"processors": processors, "peft": peft}[sys.argv[1]](root, root / "extra" / "lora")
