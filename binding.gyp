# node-gyp is only the door (node-gyp-build's fallback and prebuildify come through it); CMakeLists.txt is the build.
{
  "targets": [
    {
      "target_name": "kandinsky",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/kandinsky.node"],
          "action": ["node", "<(module_root_dir)/scripts/cmake.mjs", "<(CONFIGURATION_NAME)"],
        }
      ],
    }
  ]
}
