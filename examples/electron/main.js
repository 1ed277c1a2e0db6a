// The main process: a window and its messages. The work is done elsewhere (studio.js).
import { fileURLToPath } from 'node:url'
import { app, BrowserWindow, ipcMain } from 'electron'
import { Studio } from './studio.js'

const file = (name) => fileURLToPath(new URL(name, import.meta.url))
const studio = new Studio(process.env.KANDINSKY_MODEL)

app.whenReady().then(() => {
  ipcMain.handle('draw', (event, request) =>
    studio.draw(request, (step) => {
      if (!event.sender.isDestroyed()) event.sender.send('step', step)
    }),
  )
  ipcMain.on('cancel', (_, id) => studio.cancel(id))
  const window = new BrowserWindow({
    width: 900,
    height: 700,
    webPreferences: { preload: file('preload.cjs') },
  })
  window.loadFile(file('page/index.html'))
})
app.on('window-all-closed', () => app.quit())
app.on('will-quit', () => studio.close())
