"""Kandinsky's networks at the sizes of the published checkpoints, by diffusers and transformers, for the benchmarks."""

from diffusers import Kandinsky3UNet, Kandinsky5Transformer3DModel, PriorTransformer, UNet2DConditionModel, VQModel
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel


def prior(width):
    return PriorTransformer(num_attention_heads=32, attention_head_dim=64, num_layers=20, embedding_dim=width)


def unet(**conditioning):
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
        block_out_channels=(384, 768, 1152, 1536),
        layers_per_block=3,
        cross_attention_dim=768,
        attention_head_dim=64,
        resnet_time_scale_shift="scale_shift",
        **conditioning,
    )


def multilingual_clip():
    return MultilingualCLIP(
        MCLIPConfig(
            vocab_size=250002,
            hidden_size=1024,
            intermediate_size=4096,
            num_attention_heads=16,
            num_hidden_layers=24,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
    )


def movq(channels):
    return VQModel(
        block_out_channels=channels,
        layers_per_block=2,
        latent_channels=4,
        num_vq_embeddings=16384,
        norm_type="spatial",
        vq_embed_dim=4,
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
    )


def clip_text():
    """That of the 2.2 prior."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=1280,
            intermediate_size=5120,
            projection_dim=1280,
            num_hidden_layers=32,
            num_attention_heads=20,
            hidden_act="gelu",
            bos_token_id=0,
            eos_token_id=2,
        )
    )


def kandinsky5_transformer():
    model = Kandinsky5Transformer3DModel(
        in_visual_dim=16,
        out_visual_dim=16,
        model_dim=2560,
        ff_dim=10240,
        num_text_blocks=2,
        num_visual_blocks=4,
        axes_dims=(32, 48, 48),
    )
    for name, module in model.named_modules():  # as from_pretrained leaves them
        if name.split(".")[-1] in model._keep_in_fp32_modules:
            module.float()
    return model


BUILD = {
    "prior": lambda: prior(1280),
    "prior21": lambda: prior(768),
    "unet": lambda: unet(encoder_hid_dim=1280, encoder_hid_dim_type="image_proj", addition_embed_type="image"),
    "unet21": lambda: unet(
        encoder_hid_dim=1024, encoder_hid_dim_type="text_image_proj", addition_embed_type="text_image"
    ),
    "text": clip_text,
    "text21": multilingual_clip,
    "movq": lambda: movq((128, 256, 256, 512)),
    "unet3": lambda: Kandinsky3UNet(
        time_embedding_dim=1536,
        layers_per_block=3,
        block_out_channels=(384, 768, 1536, 3072),
        cross_attention_dim=4096,
        encoder_hid_dim=4096,
    ),
    "transformer5": kandinsky5_transformer,
    "movq3": lambda: movq((256, 512, 512, 1024)),
    "t5": lambda: T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=256,
            d_ff=16384,
            num_heads=16,
            num_layers=4,
            feed_forward_proj="gated-silu",
        )
    ),
}
