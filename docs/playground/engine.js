"use strict";
/* The segmenter: the model's graphs in a worker, so that the page stays quick, and what becomes of their mask logits.

   RUNTIME, MODEL and WORLD come from scripts that the documentation's build writes. Arrays are flat, row by row.
   Symbols: C words, S stages, n x n patches, P x P pixels. */

/* Runs in the worker: makes sessions of the graphs, then answers each request with the mask logits of every stage. */
function worker() {
  const sessions = {};
  let last, read; // `read`: what the tower gave for the `last` picture

  async function start({ glue, machine }) {
    const { wasm } = ort.env, stream = new Blob([machine]).stream().pipeThrough(new DecompressionStream("gzip"));
    wasm.numThreads = 1; // more would need a server that sends the headers of an isolated page
    wasm.wasmBinary = new Uint8Array(await new Response(stream).arrayBuffer());
    wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([glue], { type: "text/javascript" })) };
  }

  const float16 = Float32Array.from({ length: 2 ** 16 }, (_, half) => { // all that there are
    const sign = half >> 15 ? -1 : 1, exponent = (half >> 10) & 31, fraction = (half & 1023) / 1024;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
  });

  /* float16 -> float32, both as bytes. */
  function widened(bytes) {
    const halves = new Uint16Array(bytes.buffer), values = new Float32Array(halves.length);
    for (let i = 0; i < values.length; i++) values[i] = float16[halves[i]];
    return new Uint8Array(values.buffer);
  }

  async function load({ name, graph, weights }) {
    sessions[name] = await ort.InferenceSession.create(graph, {
      executionProviders: ["wasm"],
      externalData: [{ path: "weights", data: widened(weights) }],
      graphOptimizationLevel: "disabled", // it would take a second at the start, and save nothing that one notices
    });
  }

  async function segment({ picture, image, side, text, width, weights }) {
    const tensor = (values, ...shape) => new ort.Tensor("float32", values, shape);
    if (picture !== last) read = await sessions.tower.run({ image: tensor(image, 1, 3, side, side) });
    last = picture;
    const found = [], words = tensor(text, text.length / width, width);
    for (const [index, own] of weights.entries()) {
      const inputs = { blocks: read[`blocks_${index + 1}`], image_embedding: read.image_embedding, text: words };
      const { mask_logits } = await sessions[`stage_${index + 1}`].run({ ...inputs, weights: tensor(own, own.length) });
      found.push(mask_logits.data);
    }
    return found;
  }

  const tasks = { start, load, segment };
  let line = Promise.resolve(); // one request after the other
  onmessage = ({ data: { id, task, request } }) => {
    line = line.then(async () => {
      try {
        postMessage({ id, answer: await tasks[task](request) });
      } catch (error) {
        postMessage({ id, error: String(error) });
      }
    });
  };
}

/* base64 -> bytes. */
function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const packed = atob(text), found = new Uint8Array(packed.length);
  for (let i = 0; i < found.length; i++) found[i] = packed.charCodeAt(i);
  return found;
}

const engine = (() => {
  const waiting = new Map(), thread = new Worker(
    URL.createObjectURL(new Blob([RUNTIME.api, `\n(${worker})();`], { type: "text/javascript" })),
  );
  thread.onmessage = ({ data: { id, answer, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve(answer);
  };
  thread.onerror = (event) => waiting.forEach(({ reject }) => reject(new Error(event.message)));

  const ask = (task, request, given = []) => new Promise((resolve, reject) => {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    waiting.set(id, { resolve, reject });
    thread.postMessage({ id, task, request }, given);
  });

  const machine = bytes(RUNTIME.machine), started = ask("start", { glue: RUNTIME.glue, machine }, [machine.buffer]);
  /* Take the model's graphs, once their script is there: the machine code is being compiled meanwhile. */
  const load = (model) => Promise.all([started, ...Object.entries(model).map(([name, part]) => {
    const graph = bytes(part.graph), weights = bytes(part.weights);
    return ask("load", { name, graph, weights }, [graph.buffer, weights.buffer]);
  })]);
  return { load, segment: (request) => ask("segment", request) };
})();

const EMBEDDINGS = new Float32Array(bytes(WORLD.embeddings).buffer);
const WIDTH = EMBEDDINGS.length / WORLD.words.length; // E

/* Embeddings (C, E) of known words. */
function embedded(words) {
  const text = new Float32Array(words.length * WIDTH);
  words.forEach((word, row) => {
    const start = WORLD.words.indexOf(word) * WIDTH;
    text.set(EMBEDDINGS.subarray(start, start + WIDTH), row * WIDTH);
  });
  return text;
}

/* Pixels (P, P, 4) of a canvas, 0..255, -> (3, P, P), normalised. */
function normalised(pixels) {
  const count = pixels.length / 4, image = new Float32Array(3 * count);
  for (let channel = 0; channel < 3; channel++) {
    const mean = WORLD.mean[channel], std = WORLD.std[channel];
    for (let i = 0; i < count; i++) image[channel * count + i] = (pixels[4 * i + channel] / 255 - mean) / std;
  }
  return image;
}

/* Sum of the stages that are on, (C, n, n); null if none is. */
function summed(logits, on) {
  const chosen = logits.filter((_, stage) => on[stage]);
  return chosen.length ? chosen[0].map((_, i) => chosen.reduce((sum, one) => sum + one[i], 0)) : null;
}

/* Mask logits (C, n, n) -> (C, P, P), bilinearly between the patches' middles. */
function upsampled(logits) {
  const { grid, side } = WORLD, classes = logits.length / grid ** 2;
  const places = Array.from({ length: side }, (_, i) => {
    const place = Math.max(((i + 0.5) * grid) / side - 0.5, 0), low = Math.floor(place);
    return [low, Math.min(low + 1, grid - 1), place - low];
  });
  const large = new Float32Array(classes * side * side);
  for (let c = 0, at = 0; c < classes; c++) {
    const value = (row, column) => logits[(c * grid + row) * grid + column];
    for (const [top, bottom, down] of places) {
      for (const [left, right, along] of places) {
        const above = value(top, left) * (1 - along) + value(top, right) * along;
        const below = value(bottom, left) * (1 - along) + value(bottom, right) * along;
        large[at++] = above * (1 - down) + below * down;
      }
    }
  }
  return large;
}

/* The best word at every pixel (P, P) of masks (C, P, P): by probability, less the offset for seen words. */
function best(large, words, offset) {
  const pixels = WORLD.side ** 2, found = new Uint8Array(pixels), highest = new Float32Array(pixels).fill(-Infinity);
  words.forEach((word, c) => {
    const less = WORLD.seen.includes(word) ? offset : 0;
    for (let i = 0; i < pixels; i++) {
      const score = 1 / (1 + Math.exp(-large[c * pixels + i])) - less;
      if (score > highest[i]) [highest[i], found[i]] = [score, c];
    }
  });
  return found;
}
