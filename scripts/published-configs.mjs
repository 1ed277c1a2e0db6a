// Real configurations of the published checkpoints, for filling with random weights (scripts/random-checkpoint.mjs).
// Values and their provenance: diffusers' conversion scripts and the repositories' own config files.

const clipText = {
  class: 'CLIPTextModelWithProjection',
  bos_token_id: 0,
  eos_token_id: 2,
  pad_token_id: 1,
  layer_norm_eps: 1e-5,
  max_position_embeddings: 77,
  vocab_size: 49408,
}
const clipVision = {
  class: 'CLIPVisionModelWithProjection',
  image_size: 224,
  patch_size: 14,
  num_channels: 3,
  layer_norm_eps: 1e-5,
}
const prior = {
  class: 'PriorTransformer',
  num_attention_heads: 32,
  attention_head_dim: 64,
  num_layers: 20,
  num_embeddings: 77,
  additional_embeddings: 4,
  dropout: 0,
  time_embed_act_fn: 'silu',
  encoder_hid_proj_type: 'linear',
  added_emb_type: 'prd',
}
const unet = {
  class: 'UNet2DConditionModel',
  sample_size: 64,
  in_channels: 4,
  out_channels: 8,
  down_block_types: [
    'ResnetDownsampleBlock2D',
    'SimpleCrossAttnDownBlock2D',
    'SimpleCrossAttnDownBlock2D',
    'SimpleCrossAttnDownBlock2D',
  ],
  mid_block_type: 'UNetMidBlock2DSimpleCrossAttn',
  up_block_types: [
    'SimpleCrossAttnUpBlock2D',
    'SimpleCrossAttnUpBlock2D',
    'SimpleCrossAttnUpBlock2D',
    'ResnetUpsampleBlock2D',
  ],
  block_out_channels: [384, 768, 1152, 1536],
  layers_per_block: 3,
  cross_attention_dim: 768,
  attention_head_dim: 64,
  act_fn: 'silu',
  norm_num_groups: 32,
  norm_eps: 1e-5,
  resnet_time_scale_shift: 'scale_shift',
  flip_sin_to_cos: true,
  freq_shift: 0,
}
const unet21 = {
  ...unet,
  encoder_hid_dim: 1024,
  encoder_hid_dim_type: 'text_image_proj',
  addition_embed_type: 'text_image',
}
const unet22 = { ...unet, encoder_hid_dim: 1280, encoder_hid_dim_type: 'image_proj', addition_embed_type: 'image' }
const movq = {
  class: 'VQModel',
  in_channels: 3,
  out_channels: 3,
  latent_channels: 4,
  vq_embed_dim: 4,
  block_out_channels: [128, 256, 256, 512],
  layers_per_block: 2,
  down_block_types: ['DownEncoderBlock2D', 'DownEncoderBlock2D', 'DownEncoderBlock2D', 'AttnDownEncoderBlock2D'],
  up_block_types: ['AttnUpDecoderBlock2D', 'UpDecoderBlock2D', 'UpDecoderBlock2D', 'UpDecoderBlock2D'],
  num_vq_embeddings: 16384,
  norm_num_groups: 32,
  norm_type: 'spatial',
  sample_size: 32,
  act_fn: 'silu',
}
const multilingualClip = {
  class: 'MultilingualCLIP',
  vocab_size: 250002,
  hidden_size: 1024,
  intermediate_size: 4096,
  num_attention_heads: 16,
  num_hidden_layers: 24,
  max_position_embeddings: 514,
  type_vocab_size: 1,
  hidden_act: 'gelu',
  layer_norm_eps: 1e-5,
  pad_token_id: 1,
  transformerDimensions: 1024,
  numDims: 768,
}

const flanUl2 = {
  class: 'T5EncoderModel',
  d_model: 4096,
  d_ff: 16384,
  d_kv: 256,
  num_heads: 16,
  num_layers: 32,
  vocab_size: 32128,
  relative_attention_num_buckets: 32,
  relative_attention_max_distance: 128,
  layer_norm_epsilon: 1e-6,
  feed_forward_proj: 'gated-silu',
}
const kandinsky3 = {
  text_encoder: flanUl2,
  unet: {
    class: 'Kandinsky3UNet',
    in_channels: 4,
    time_embedding_dim: 1536,
    groups: 32,
    attention_head_dim: 64,
    layers_per_block: 3,
    block_out_channels: [384, 768, 1536, 3072],
    cross_attention_dim: 4096,
    encoder_hid_dim: 4096,
  },
  movq: { ...movq, block_out_channels: [256, 512, 512, 1024] },
}

const kandinsky5 = {
  text_encoder: {
    class: 'Qwen2_5_VLForConditionalGeneration',
    hidden_size: 3584,
    intermediate_size: 18944,
    num_hidden_layers: 28,
    num_attention_heads: 28,
    num_key_value_heads: 4,
    vocab_size: 152064,
    rms_norm_eps: 1e-6,
    rope_theta: 1e6,
  },
  text_encoder_2: {
    class: 'CLIPTextModel',
    vocab_size: 49408,
    max_position_embeddings: 77,
    eos_token_id: 2,
    hidden_size: 768,
    intermediate_size: 3072,
    num_attention_heads: 12,
    num_hidden_layers: 12,
    hidden_act: 'quick_gelu',
  },
  transformer: {
    class: 'Kandinsky5Transformer3DModel',
    in_visual_dim: 16,
    out_visual_dim: 16,
    visual_cond: false,
    in_text_dim: 3584,
    in_text_dim2: 768,
    time_dim: 512,
    model_dim: 2560,
    ff_dim: 10240,
    num_text_blocks: 2,
    num_visual_blocks: 50,
    axes_dims: [32, 48, 48],
    patch_size: [1, 2, 2],
  },
  vae: {
    class: 'AutoencoderKL',
    latent_channels: 16,
    layers_per_block: 2,
    block_out_channels: [128, 256, 512, 512],
    down_block_types: new Array(4).fill('DownEncoderBlock2D'),
    up_block_types: new Array(4).fill('UpDecoderBlock2D'),
    use_quant_conv: false,
    use_post_quant_conv: false,
    scaling_factor: 0.3611,
  },
}

const qwenVision = {
  image_token_id: 151655,
  'rope_scaling.mrope_section': [16, 24, 24],
  'vision_config.depth': 32,
  'vision_config.hidden_size': 1280,
  'vision_config.num_heads': 16,
  'vision_config.intermediate_size': 3420,
  'vision_config.out_hidden_size': 3584,
  'vision_config.patch_size': 14,
  'vision_config.temporal_patch_size': 2,
  'vision_config.spatial_merge_size': 2,
  'vision_config.window_size': 112,
  'vision_config.fullatt_block_indexes': [7, 15, 23, 31],
  'vision_config.in_chans': 3,
}

/** Checkpoint name -> component name -> class and config. */
export const publishedConfigs = {
  'kandinsky-2-2-prior': {
    prior: { ...prior, embedding_dim: 1280 },
    text_encoder: {
      ...clipText,
      hidden_size: 1280,
      intermediate_size: 5120,
      num_attention_heads: 20,
      num_hidden_layers: 32,
      projection_dim: 1280,
      hidden_act: 'gelu',
    },
    image_encoder: {
      ...clipVision,
      hidden_size: 1664,
      intermediate_size: 8192,
      num_attention_heads: 16,
      num_hidden_layers: 48,
      projection_dim: 1280,
      hidden_act: 'gelu',
    },
  },
  'kandinsky-2-2-decoder': { unet: unet22, movq },
  'kandinsky-2-2-decoder-inpaint': { unet: { ...unet22, in_channels: 9 }, movq },
  'kandinsky-2-2-controlnet-depth': { unet: { ...unet22, in_channels: 8, addition_embed_type: 'image_hint' }, movq },
  'kandinsky-2-1-prior': {
    prior: { ...prior, embedding_dim: 768 },
    text_encoder: {
      ...clipText,
      hidden_size: 768,
      intermediate_size: 3072,
      num_attention_heads: 12,
      num_hidden_layers: 12,
      projection_dim: 768,
      hidden_act: 'quick_gelu',
    },
    image_encoder: {
      ...clipVision,
      hidden_size: 1024,
      intermediate_size: 4096,
      num_attention_heads: 16,
      num_hidden_layers: 24,
      projection_dim: 768,
      hidden_act: 'quick_gelu',
    },
  },
  'kandinsky-2-1': { text_encoder: multilingualClip, unet: unet21, movq },
  'kandinsky-2-1-inpaint': { text_encoder: multilingualClip, unet: { ...unet21, in_channels: 9 }, movq },
  'kandinsky-3': kandinsky3,
  'kandinsky-5': kandinsky5,
  'kandinsky-5-i2i': {
    ...kandinsky5,
    text_encoder: { ...kandinsky5.text_encoder, ...qwenVision },
    transformer: { ...kandinsky5.transformer, visual_cond: true },
  },
  'kandinsky-5-4-blocks': { transformer: { ...kandinsky5.transformer, num_visual_blocks: 4 } },
  // All layers are alike. These few leave room for torch's bfloat16 weights beside ours: all 32 are 17 GB there.
  'kandinsky-3-t5-4-layers': { text_encoder: { ...flanUl2, num_layers: 4 } },
}

const { prior: prior22, text_encoder } = publishedConfigs['kandinsky-2-2-prior']
/** What text-to-image runs with: prior and decoder in one file, without the image encoder. */
publishedConfigs['kandinsky-2-2'] = { ...publishedConfigs['kandinsky-2-2-decoder'], prior: prior22, text_encoder }
