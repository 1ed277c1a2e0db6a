// Activations of the variants without a bfloat16 dot product.

using act_t = float;

INLINE vf aload(const act_t* p) { return vload(p); }
INLINE void astore(act_t* p, vf x) { vstore(p, x); }
