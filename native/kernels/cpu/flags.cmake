# Compiler flags of the translation units that are compiled for one instruction set; each is empty on other processors.
# Optimized in debug builds too: without inlining the kernels are a hundred times slower.
function(kernel_flags source)
  set(flags -O3 -ffp-contract=fast -fno-math-errno -fno-strict-aliasing ${ARGN})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 takes the deliberately undefined pass-through operands of its own AVX-512 intrinsics for mistakes.
    list(APPEND flags -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
  set_source_files_properties("${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${source}.cpp" PROPERTIES COMPILE_OPTIONS "${flags}")
endfunction()

set(avx512_flags -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
# Some compilers count the 512-bit registers apart, and Zig's clang leaves them out.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mevex512 KANDINSKY_HAS_EVEX512)
if(KANDINSKY_HAS_EVEX512)
  list(APPEND avx512_flags -mevex512)
endif()
kernel_flags(portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  kernel_flags(avx2 -mavx2 -mfma -mf16c)
  kernel_flags(avx2_f32 -mavx2 -mfma -mf16c)
  kernel_flags(avx512 ${avx512_flags})
  kernel_flags(avx512_f32 ${avx512_flags})
  kernel_flags(avx512_bf16 ${avx512_flags} -mavx512bf16)
  check_cxx_compiler_flag("-mamx-tile -mamx-bf16" KANDINSKY_HAS_AMX)
  if(KANDINSKY_HAS_AMX AND CMAKE_SYSTEM_NAME STREQUAL "Linux")  # elsewhere nobody asked for the permission
    kernel_flags(amx_bf16 ${avx512_flags} -mavx512bf16 -mamx-tile -mamx-bf16)
    # Compilers do not agree on a macro of their own for it.
    set_source_files_properties("${CMAKE_CURRENT_LIST_DIR}/amx_bf16.cpp" "${CMAKE_CURRENT_LIST_DIR}/dispatch.cpp"
      PROPERTIES COMPILE_DEFINITIONS KANDINSKY_HAS_AMX)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  kernel_flags(neon)
  kernel_flags(neon_f32)
  # Zig has names of its own for processors: scripts/prebuild.mjs.
  set(KANDINSKY_ARM_BF16 -march=armv8.2-a+bf16 CACHE STRING "the flag that allows bfloat16 instructions")
  kernel_flags(neon_bf16 ${KANDINSKY_ARM_BF16})
endif()
