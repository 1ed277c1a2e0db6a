import assert from 'node:assert/strict'
import test from 'node:test'
import { binding } from '../../dist/native.js'
import { checkWeightType, targetType } from '../../dist/networks/policy.js'
import { publishedConfigs } from '../../scripts/published-configs.mjs'

const unet = (name, shape, weights, { rules, type = 'f32', precision = 'quantizable' } = {}) =>
  targetType('unet', { name, shape, type }, precision, weights, rules)

/** Target types of the weights that a published network asks for, by name. */
function typesOf(repository, component, weights) {
  const { class: className, ...config } = publishedConfigs[repository][component]
  const specs = binding().describeNetwork(className, component, config)
  const target = ({ name, shape, precision }) => targetType(component, { name, shape, type: 'f32' }, precision, weights)
  return new Map(specs.map((spec) => [spec.name, target(spec)]))
}

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

test('networks say which weights keep float32 or float16, because their error would reach everything', () => {
  const decoder = 'kandinsky-2-2-decoder'
  const prior = 'kandinsky-2-2-prior'
  const expected = [
    [decoder, 'unet', 'conv_in.weight', 'f32'],
    [decoder, 'unet', 'conv_out.weight', 'f32'],
    [decoder, 'unet', 'time_embedding.linear_1.weight', 'f16'],
    [decoder, 'unet', 'add_embedding.image_proj.weight', 'f16'],
    [prior, 'prior', 'positional_embedding', 'f32'],
    [prior, 'prior', 'clip_mean', 'f32'],
    [prior, 'prior', 'clip_std', 'f32'],
    [prior, 'prior', 'proj_to_clip_embeddings.weight', 'f16'],
    [prior, 'text_encoder', 'text_model.embeddings.token_embedding.weight', 'f16'],
    [prior, 'image_encoder', 'vision_model.embeddings.position_embedding.weight', 'f32'],
    [prior, 'image_encoder', 'vision_model.embeddings.class_embedding', 'f32'],
    ['kandinsky-2-1', 'text_encoder', 'transformer.embeddings.word_embeddings.weight', 'f16'],
    [decoder, 'movq', 'decoder.mid_block.attentions.0.spatial_norm.conv_y.weight', 'f32'],
    [decoder, 'movq', 'decoder.mid_block.attentions.0.spatial_norm.conv_b.weight', 'f32'],
    [decoder, 'movq', 'quant_conv.weight', 'f32'],
    [decoder, 'movq', 'post_quant_conv.weight', 'f32'],
    [decoder, 'movq', 'encoder.conv_out.weight', 'f32'],
  ]
  for (const weights of ['q8_0', 'q4_K'])
    for (const [repository, component, name, type] of expected)
      assert.equal(typesOf(repository, component, weights).get(name), type, `${component}.${name} as ${weights}`)
})

test('weights that only sound like an exception are quantized', () => {
  const types = typesOf('kandinsky-2-2-decoder', 'unet', 'q8_0')
  for (const name of [
    'down_blocks.0.resnets.0.time_emb_proj.weight',
    'down_blocks.1.resnets.0.conv_shortcut.weight',
    'encoder_hid_proj.image_embeds.weight',
  ])
    assert.equal(types.get(name), 'q8_0', name)
})

test('MoVQ never goes below q8_0', () => {
  const conv = 'decoder.mid_block.resnets.0.conv1.weight'
  const movq = (weights) => typesOf('kandinsky-2-2-decoder', 'movq', weights).get(conv)
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
