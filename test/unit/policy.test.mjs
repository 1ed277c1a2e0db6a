import assert from 'node:assert/strict'
import test from 'node:test'
import { checkWeightType, targetType } from '../../dist/networks/policy.js'

const unet = (name, shape, weights, { rules, type = 'f32' } = {}) =>
  targetType('UNet2DConditionModel', 'unet', { name, shape, type }, weights, rules)

test('large matrices and convolution kernels get the wanted type', () => {
  assert.equal(unet('mid_block.attentions.0.to_q.weight', [1536, 1536], 'q4_K'), 'q4_K')
  assert.equal(unet('down_blocks.0.resnets.0.conv1.weight', [768, 768, 3, 3], 'q6_K'), 'q6_K')
  assert.equal(unet('down_blocks.0.resnets.0.conv1.weight', [768, 768, 3, 3], 'q8_0'), 'q8_0')
})

test('a row that is no whole number of blocks takes the nearest type whose blocks fit', () => {
  const conv = 'down_blocks.0.resnets.0.conv1.weight' // rows of 384 * 9 = 13.5 * 256 = 108 * 32
  assert.equal(unet(conv, [384, 384, 3, 3], 'q6_K'), 'q8_0')
  assert.equal(unet(conv, [384, 384, 3, 3], 'q5_K'), 'q5_0')
  assert.equal(unet(conv, [384, 384, 3, 3], 'q4_K'), 'q4_0')
  assert.equal(unet(conv, [384, 384, 3, 3], 'q4_0'), 'q4_0')
  for (const type of ['q8_0', 'q6_K', 'q5_K', 'q4_K', 'q5_0', 'q4_0'])
    assert.equal(unet('some.weight', [64, 4, 3, 3], type), 'f16', type)
})

test('a packed kernel of our GGUF is judged as the kernel it was', () => {
  for (const type of ['q4_K', 'q8_0'])
    assert.equal(unet('x.conv1.weight', [384, 3456], type), unet('x.conv1.weight', [384, 384, 3, 3], type))
})

test('vectors stay float32, whatever is asked for', () => {
  for (const weights of [undefined, 'f16', 'q4_0'])
    for (const [name, shape] of [
      ['conv_norm_out.weight', [384]],
      ['down_blocks.0.resnets.0.conv1.bias', [384]],
      ['prd_embedding', [1, 1, 2048]],
    ])
      assert.equal(unet(name, shape, weights, { type: 'f16', rules: [{ pattern: /./, type: 'q8_0' }] }), 'f32', name)
})

test('weights whose error would reach everything keep float32 or float16', () => {
  const exact = {
    UNet2DConditionModel: [
      ['conv_in.weight', [384, 4, 3, 3]],
      ['conv_out.weight', [8, 384, 3, 3]],
    ],
    PriorTransformer: [
      ['positional_embedding', [1, 81, 2048]],
      ['clip_mean', [1, 1280]],
      ['clip_std', [1, 1280]],
    ],
    CLIPVisionModelWithProjection: [
      ['vision_model.embeddings.position_embedding.weight', [257, 1664]],
      ['vision_model.embeddings.class_embedding', [1664]],
    ],
    VQModel: [
      ['decoder.mid_block.attentions.0.spatial_norm.conv_y.weight', [512, 4, 1, 1]],
      ['decoder.mid_block.attentions.0.spatial_norm.conv_b.weight', [512, 4, 1, 1]],
      ['quant_conv.weight', [4, 4, 1, 1]],
      ['post_quant_conv.weight', [4, 4, 1, 1]],
      ['encoder.conv_out.weight', [4, 512, 3, 3]],
    ],
  }
  const half = {
    UNet2DConditionModel: [
      ['time_embedding.linear_1.weight', [1536, 384]],
      ['add_embedding.image_proj.weight', [1536, 1280]],
    ],
    PriorTransformer: [['proj_to_clip_embeddings.weight', [1280, 2048]]],
    CLIPTextModelWithProjection: [['text_model.embeddings.token_embedding.weight', [49408, 1280]]],
    MultilingualCLIP: [['transformer.embeddings.word_embeddings.weight', [250002, 1024]]],
  }
  for (const [expected, table] of [
    ['f32', exact],
    ['f16', half],
  ])
    for (const [className, tensors] of Object.entries(table))
      for (const [name, shape] of tensors)
        for (const weights of ['q8_0', 'q4_K'])
          assert.equal(targetType(className, 'x', { name, shape, type: 'f32' }, weights), expected, name)
})

test('names that only look like an exception are quantized', () => {
  assert.equal(unet('down_blocks.0.resnets.0.time_emb_proj.weight', [768, 1536], 'q8_0'), 'q8_0')
  assert.equal(unet('down_blocks.1.resnets.0.conv_shortcut.weight', [768, 384, 1, 1], 'q8_0'), 'q8_0')
  assert.equal(unet('encoder_hid_proj.image_embeds.weight', [24576, 1280], 'q8_0'), 'q8_0')
})

test('MoVQ never goes below q8_0', () => {
  const movq = (weights) =>
    targetType('VQModel', 'movq', { name: 'decoder.conv.weight', shape: [512, 512, 3, 3], type: 'f32' }, weights)
  assert.deepEqual(['q4_0', 'q6_K', 'q8_0', 'f16', 'f32'].map(movq), ['q8_0', 'q8_0', 'q8_0', 'f16', 'f32'])
})

test('without a wanted type, matrices stay as stored and what has no weight type becomes float32', () => {
  for (const type of ['f32', 'f16', 'bf16', 'q8_0', 'q4_K'])
    assert.equal(unet('a.weight', [256, 256], undefined, { type }), type)
  for (const type of ['f64', 'i64']) assert.equal(unet('a.weight', [256, 256], undefined, { type }), 'f32')
})

test('the first rule that matches decides, and sees the component', () => {
  const rules = [
    { pattern: /^unet\.mid_block/g, type: 'q8_0' },
    { pattern: /mid_block|conv_in/, type: 'f16' },
  ]
  for (let i = 0; i < 2; i++) assert.equal(unet('mid_block.a.weight', [256, 256], 'q4_0', { rules }), 'q8_0')
  assert.equal(unet('conv_in.weight', [384, 4, 3, 3], 'q4_0', { rules }), 'f16')
  assert.equal(unet('up_blocks.0.a.weight', [256, 256], 'q4_0', { rules }), 'q4_0')
})

test('a rule that no row can hold is an error that names tensor and rule', () => {
  const rules = [{ pattern: /conv/, type: 'q4_K' }]
  assert.throws(() => unet('a.conv1.weight', [384, 384, 3, 3], undefined, { rules }), {
    code: 'INVALID_ARGUMENT',
    message: /rows of 3456 values for unet\.a\.conv1\.weight.*conv=q4_K needs a multiple of 256/,
  })
})

test('an unknown weight type is an error that lists the known ones', () => {
  assert.equal(checkWeightType(undefined), undefined)
  for (const value of ['q3_K', 'Q8_0', '', 8, null])
    assert.throws(() => checkWeightType(value), { code: 'INVALID_ARGUMENT', message: /q8_0/ })
})
