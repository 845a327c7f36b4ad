"use strict";
/* The page: its controls, and what they ask of the model. */

const MOST_WORDS = 10;
const ARROWS = { ArrowLeft: ["left", -1], ArrowRight: ["left", 1], ArrowUp: ["top", -1], ArrowDown: ["top", 1] };
const GROWTH = { "+": 2, "=": 2, "-": -2 }; // pixels of a side

const cascade = {
  on: WORLD.stages.map(() => true),
  offset: WORLD.offset,
  weights: WORLD.stages.map((stage) => [...stage.weights]),
};
let words = wordsInScene();
let told = ""; // what was just done, for the status line

// --- the model is asked for what has changed ------------------------------------------------------------------------

const ready = engine.load(MODEL);
let pictures = 0, picture = null, shown = null, due = false, busy = false;

/* Mask logits of every stage for a picture and words; pictures of the same number are the same. */
function ask(number, pixels, wanted, weights) {
  return engine.segment({
    picture: number, image: normalised(pixels), side: WORLD.side, text: embedded(wanted), width: WIDTH,
    weights: weights.map((own) => new Float32Array(own)),
  });
}

async function redraw() {
  picture = { number: ++pictures, ...(await paint($("picture"))) };
  $("picture").setAttribute("aria-label", `the scene: ${wordsInScene().join(", ")}`);
  refresh();
}

/* Segment anew; while the model is busy, only the last wish counts. */
async function refresh() {
  due = true;
  if (busy || !picture) return;
  busy = true;
  try {
    await ready;
    while (due) {
      due = false;
      const began = performance.now(), { number, pixels, truth } = picture, wanted = [...words];
      shown = { words: wanted, truth, logits: await ask(number, pixels, wanted, cascade.weights) };
      report(performance.now() - began);
    }
  } catch (error) {
    $("status").textContent = `This browser cannot run the model: ${error.message}`;
  }
  busy = false;
}

/* Draw the last answer, and say so unless the next is on its way; `took` in milliseconds, if the model was asked. */
function report(took = null) {
  const right = drawMasks(shown, cascade), parts = told ? [told] : [], first = playground.first === null;
  if (first) playground.first = performance.now();
  if (due) return;
  if (took !== null) parts.push(`${shown.words.length} words in ${Math.round(took)} ms.`);
  if (first) parts.push(`First result after ${(playground.first / 1000).toFixed(1)} s.`);
  if (right !== null) parts.push(`The sum is right at ${percent(right)} of the pixels of these words.`);
  $("status").textContent = parts.join(" ");
  told = "";
}

// --- words ----------------------------------------------------------------------------------------------------------

/* Take the words of the field; those that the model does not know are told of and left out. */
function readWords() {
  const given = [...new Set($("words").value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean))];
  const known = given.filter((word) => WORLD.words.includes(word));
  const unknown = given.filter((word) => !known.includes(word)).map((word) => `“${word}”`), problems = [];
  if (unknown.length) problems.push(`${unknown.join(", ")}: not among the model's ${WORLD.words.length} words.`);
  if (known.length > MOST_WORDS) problems.push(`The first ${MOST_WORDS} words are drawn.`);
  if (!known.length) problems.push(`Type at least one word, for example ${wordsInScene()[0]}.`);
  $("problem").textContent = problems.join(" ");
  $("words").setAttribute("aria-invalid", String(problems.length > 0));
  if (!known.length) return;
  words = known.slice(0, MOST_WORDS);
  refresh();
}

function writeWords(list) {
  words = list.slice(0, MOST_WORDS);
  $("words").value = words.join(", ");
  $("problem").textContent = "";
  $("words").setAttribute("aria-invalid", "false");
}

/* What the field can go on with: the words before the last comma stay. */
function offerWords() {
  const parts = $("words").value.split(","), before = parts.slice(0, -1).map((word) => word.trim()).filter(Boolean);
  const start = before.map((word) => `${word}, `).join("");
  const left = WORLD.words.filter((word) => !before.includes(word));
  $("known").replaceChildren(...left.map((word) => element("option", { value: start + word, label: called(word) })));
}

function addWord(word) {
  if (!words.includes(word) && words.length < MOST_WORDS) writeWords([...words, word]);
}

// --- things ---------------------------------------------------------------------------------------------------------

const described = ({ name, left, top, side }) =>
  `${name}, ${side} pixels wide, ${left} from the left, ${top} from the top`;

/* A button over every thing, which takes focus, keys and pointer. */
function setButtons() {
  for (const old of document.querySelectorAll(".thing")) old.remove();
  for (const thing of scene.things) {
    const handle = element("span", { className: "handle" });
    thing.button = element("button", { type: "button", className: "thing" }, handle);
    thing.button.addEventListener("focus", () => choose(thing));
    thing.button.addEventListener("keydown", (event) => onKey(event, thing));
    thing.button.addEventListener("pointerdown", (event) => drag(event, thing, event.target === handle));
    $("scene").append(thing.button);
    arrange(thing);
  }
  $("add").disabled = scene.things.length >= MOST_THINGS;
}

function arrange(thing) {
  fit(thing);
  thing.button.setAttribute("aria-label", described(thing));
  for (const edge of ["left", "top"]) thing.button.style[edge] = percentOfScene(thing[edge]);
  thing.button.style.width = thing.button.style.height = percentOfScene(thing.side);
}

const percentOfScene = (length) => `${(100 * length) / WORLD.side}%`;

function changed(thing) {
  arrange(thing);
  choose(thing);
  told = `${described(thing)}.`;
  redraw();
}

let chosen = null;

/* Show a thing's place in the fields beside the scene; null: nothing is chosen. */
function choose(thing) {
  chosen = thing;
  $("chosen").hidden = !thing;
  for (const one of scene.things) one.button.classList.toggle("chosen", one === thing);
  if (!thing) return;
  $("chosen").firstElementChild.textContent = thing.name;
  const room = WORLD.side - thing.side, ends = { left: [0, room], top: [0, room], side: [SMALLEST, WORLD.side] };
  for (const [id, [low, high]] of Object.entries(ends)) show($(id), thing[id], { min: low, max: high });
}

/* Set a slider and the number beside it. */
function show(slider, value, ends = {}, text = String(value)) {
  Object.assign(slider, ends);
  slider.value = value;
  slider.nextElementSibling.textContent = text;
}

function onKey(event, thing) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Delete" || event.key === "Backspace") removeThing(thing);
  else if (event.key in ARROWS) {
    const [edge, step] = ARROWS[event.key];
    thing[edge] += event.shiftKey ? 8 * step : step;
    changed(thing);
  } else if (event.key in GROWTH) {
    const more = GROWTH[event.key]; // on all sides
    thing.side += more;
    thing.left -= more / 2;
    thing.top -= more / 2;
    changed(thing);
  } else return;
  event.preventDefault();
}

function drag(event, thing, resize) {
  const { button } = thing, unit = WORLD.side / $("scene").clientWidth;
  const start = { x: event.clientX, y: event.clientY, left: thing.left, top: thing.top, side: thing.side };
  choose(thing);
  button.setPointerCapture(event.pointerId);
  button.onpointermove = ({ clientX, clientY }) => {
    const across = (clientX - start.x) * unit, down = (clientY - start.y) * unit;
    if (resize) thing.side = start.side + Math.max(across, down);
    else [thing.left, thing.top] = [start.left + across, start.top + down];
    changed(thing);
  };
  button.onlostpointercapture = () => { button.onpointermove = null; };
}

function removeThing(thing) {
  const place = scene.things.indexOf(thing);
  told = `${thing.name} is removed.`;
  scene.things.splice(place, 1);
  setButtons();
  const next = scene.things[Math.min(place, scene.things.length - 1)];
  choose(next ?? null);
  (next ? next.button : $("add")).focus();
  redraw();
}

function addThing() {
  const thing = placed($("thing").value, $("style").value, 40);
  addWord(thing.name);
  told = `${described(thing)}.`;
  setButtons();
  thing.button.focus();
  redraw();
}

// --- the page -------------------------------------------------------------------------------------------------------

function setCascade() {
  show($("offset"), cascade.offset, {}, cascade.offset.toFixed(2));
  for (const slider of document.querySelectorAll("#weights input")) {
    const { stage, block } = slider.dataset, value = cascade.weights[stage][block];
    show(slider, value, {}, value.toFixed(2));
  }
}

function weightSliders() {
  return WORLD.stages.flatMap(({ blocks, nga }, stage) => {
    if (!nga) return [];
    const sliders = blocks.map((number, block) => {
      const slider = element("input", { type: "range", min: -0.5, max: 2, step: "any" });
      Object.assign(slider.dataset, { stage, block });
      slider.addEventListener("input", () => {
        cascade.weights[stage][block] = Number(slider.value);
        setCascade();
        refresh();
      });
      return element("label", { className: "slider" }, `block ${number}`, slider, element("output"));
    });
    return [element("fieldset", {}, element("legend", {}, `stage ${stage + 1}`), ...sliders)];
  });
}

/* NGA's weights before training: exp(-(d - l)^2 / (2 sigma^2)) for l = 1..d. */
function gaussian(blocks, sigma) {
  return blocks.map((_, l) => Math.exp(-((blocks.length - 1 - l) ** 2) / (2 * sigma ** 2)));
}

function heads() {
  return NAMES.map((name, stage) => {
    if (!WORLD.stages[stage]) return element("th", { scope: "col" }, name);
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      cascade.on[stage] = box.checked;
      told = `${name} is ${box.checked ? "on" : "off"}.`;
      if (shown) report();
    });
    const blocks = element("small", {}, `blocks ${WORLD.stages[stage].blocks.join("+")}`);
    return element("th", { scope: "col" }, element("label", {}, box, ` ${name}`), blocks);
  });
}

function setScene() {
  $("ground").value = scene.ground;
  $("beyond").value = scene.beyond;
  writeWords(wordsInScene());
  setButtons();
  choose(null);
  redraw();
}

function start() {
  const options = (list) => list.map((value) => element("option", { value }, called(value)));
  $("thing").append(...options(WORLD.things));
  $("style").append(...WORLD.styles.map((value) => element("option", { value }, value)));
  $("ground").append(...options(WORLD.stuff));
  $("beyond").append(element("option", { value: "" }, "nothing else"), ...options(WORLD.stuff));
  $("masks").tHead.rows[0].append(...heads());
  $("weights").append(...weightSliders());
  $("picture").width = $("picture").height = WORLD.side;
  for (const which of ["ground", "beyond"]) {
    $(which).addEventListener("change", () => {
      scene[which] = $(which).value;
      if (scene[which]) addWord(scene[which]);
      redraw();
    });
  }
  for (const id of ["left", "top", "side"]) {
    $(id).addEventListener("input", () => {
      chosen[id] = Number($(id).value);
      changed(chosen);
    });
  }
  $("offset").addEventListener("input", () => {
    cascade.offset = Number($("offset").value);
    setCascade();
    if (shown) report();
  });
  $("sigma").addEventListener("input", () => {
    const sigma = Number($("sigma").value);
    weigh(({ blocks }) => gaussian(blocks, sigma), sigma.toFixed(1));
  });
  $("trained").addEventListener("click", () => weigh(({ weights }) => [...weights], ""));
  $("add").addEventListener("click", addThing);
  $("remove").addEventListener("click", () => removeThing(chosen));
  $("random").addEventListener("click", () => { randomScene(); setScene(); });
  $("words").addEventListener("input", offerWords);
  $("words").addEventListener("change", readWords);
  setCascade();
  setScene();
  offerWords();
}

/* Give every stage with NGA other weights; `said` is what stands beside sigma. */
function weigh(weights, said) {
  WORLD.stages.forEach((stage, index) => { if (stage.nga) cascade.weights[index] = weights(stage); });
  $("sigma").nextElementSibling.textContent = said;
  setCascade();
  refresh();
}

/* For tests: what the page computes of any picture (P, P, 4) of 0..255: numbers of the best words (P, P). */
async function segment(pixels, wanted, { weights = cascade.weights, on = cascade.on, offset = cascade.offset } = {}) {
  await ready;
  const logits = await ask(++pictures, pixels, wanted, weights);
  picture.number = ++pictures; // the model has forgotten the scene
  const found = (masks) => masks && best(upsampled(masks), wanted, offset);
  return { stages: logits.map(found), sum: found(summed(logits, on)) };
}

const playground = { first: null, segment }; // `first`: ms from asking for the page to the first result
start();
