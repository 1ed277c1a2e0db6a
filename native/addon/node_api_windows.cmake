# An addon that imports Node-API from node.exe by name does not load in Electron, Bun or Deno. Here each function jumps to
# the one of that name in the program of the process, whatever that is called.
#
# write_node_api(<source> <directory of the .def files of node-api-headers>)
function(write_node_api source definitions)
  file(STRINGS "${definitions}/js_native_api.def" names REGEX "^ *(napi|node_api)_")
  file(STRINGS "${definitions}/node_api.def" more REGEX "^ *(napi|node_api)_")
  list(APPEND names ${more})
  list(TRANSFORM names STRIP)
  list(REMOVE_DUPLICATES names)
  list(TRANSFORM names REPLACE "(.+)" "  F(\\1) \\\\\n" OUTPUT_VARIABLE functions)
  string(REPLACE ";" "" functions "${functions}")
  file(GENERATE OUTPUT "${source}" CONTENT "#include <windows.h>
#define FUNCTIONS(F) \\
${functions}
#define SLOT(name) FARPROC kandinsky_##name;
#define JUMP(name) __attribute__((naked)) void name(void) { __asm__(\"jmpq *kandinsky_\" #name \"(%rip)\"); }
#define FILL(name) kandinsky_##name = GetProcAddress(program, #name);
FUNCTIONS(SLOT)
FUNCTIONS(JUMP)
__attribute__((constructor)) static void fill_slots(void) {
  const HMODULE program = GetModuleHandleW(NULL);
  FUNCTIONS(FILL)
}
")
endfunction()
