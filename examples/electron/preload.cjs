// The bridge: all that the page may ask for.
const { contextBridge, ipcRenderer } = require('electron')

contextBridge.exposeInMainWorld('studio', {
  draw: (request) => ipcRenderer.invoke('draw', request),
  cancel: (id) => ipcRenderer.send('cancel', id),
  onStep: (listener) => ipcRenderer.on('step', (_, step) => listener(step)),
})
