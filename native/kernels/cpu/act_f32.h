// Activations of the variants without a bfloat16 dot product, and their weights: bfloat16, or float32 where WEIGHTS_F32
// asks for exact results.

using act_t = float;
#ifdef WEIGHTS_F32
using weight_t = float;
INLINE void narrow(float* p, vf x) { vstore(p, x); }
#else
using weight_t = uint16_t;
#endif

INLINE vf aload(const act_t* p) { return vload(p); }
INLINE void astore(act_t* p, vf x) { vstore(p, x); }
