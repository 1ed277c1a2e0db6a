# An addon that imports Node-API from node.exe by name does not load in Electron, Bun or Deno. Here each function's import
# slot, which the compiler calls through, is a variable that is filled from the program of the process, whatever its name.
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
#define SLOT(name) FARPROC __imp_##name;
#define FILL(name) __imp_##name = GetProcAddress(program, #name);
FUNCTIONS(SLOT)
__attribute__((constructor)) static void fill_slots(void) {
  const HMODULE program = GetModuleHandleW(NULL);
  FUNCTIONS(FILL)
}
")
endfunction()
