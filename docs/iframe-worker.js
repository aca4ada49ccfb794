// The search runs in a worker, which browsers refuse to pages that are opened from the disk. There its script runs in a
// hidden frame. The theme's offline plugin would load such a program from another host; this file's name keeps it from that.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside = new Promise(loaded => {
        const script = inside.document.createElement("script")
        script.src = url
        script.onload = () => loaded(inside)
        inside.document.body.append(script)
      })
    }

    async postMessage(data) {
      (await this.inside).dispatchEvent(new MessageEvent("message", { data }))
    }
  }
  window.Worker = window.IFrameWorker
}
