# An addon that imports Node-API from node.exe by name does not load in Electron, Bun or Deno. Here each function jumps to
# the one of that name in the program of the process, whatever that is called.
#
# write_node_api(<source> <directory of the .def files of node-api-headers>)
function(write_node_api source definitions)
  set(names "")
  foreach(list IN ITEMS js_native_api node_api)
    file(STRINGS "${definitions}/${list}.def" lines REGEX "^ *(napi|node_api)_")
    foreach(line IN LISTS lines)
      string(STRIP "${line}" name)
      string(APPEND names "  F(${name}) \\\n")
    endforeach()
  endforeach()
  file(GENERATE OUTPUT "${source}" CONTENT "#include <windows.h>
#define FUNCTIONS(F) \\
${names}
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
