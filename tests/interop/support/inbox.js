// What a client was told, in order. `next` waits for the next entry, `until` for one that fits; both fail with everything received.
const DEADLINE = 10_000;

export class Inbox {
  #entries = [];
  #taken = 0;
  #wake = () => {};

  push(name, value) {
    this.#entries.push({ name, value });
    this.#wake();
  }

  // A callback that notes what it gets under `name`.
  as(name) { return (value, metadata) => this.push(name, metadata?.user_id ? { value, user_id: metadata.user_id } : value); }

  async next(deadline = DEADLINE) {
    const end = Date.now() + deadline;
    while (this.#taken === this.#entries.length) {
      const left = end - Date.now();
      if (left <= 0) throw new Error(`nothing came in ${deadline} ms; received so far: ${JSON.stringify(this.#entries)}`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => { clearTimeout(timer); resolve(); };
      });
    }
    return this.#entries[this.#taken++];
  }

  async until(fits, deadline = DEADLINE) {
    const end = Date.now() + deadline;
    for (;;) {
      const entry = await this.next(Math.max(end - Date.now(), 1));
      if (typeof fits === 'string' ? entry.name === fits : fits(entry)) return entry.value;
    }
  }
}
