// Wires the page: files, brushes, keys, and the steps photograph → trimap → matte → download.

import * as api from "./api.js";
import { Camera } from "./camera.js";
import { BACKGROUND, FOREGROUND, Labels, UNKNOWN } from "./labels.js";
import { Pyramid } from "./pyramid.js";
import { Screen } from "./screen.js";

// Width of a brush on the screen, CSS pixels, before it is changed; and the largest that a cursor may have.
const BRUSH = 18, LARGEST_CURSOR = 120;

const FIRST_STEP = "Draw over background and foreground, then propose a trimap.";

// What a job reports in each of its phases.
const PHASES = {
  trimap: (done, total) => total ? `Narrowing the trimap: ${done} of ${total} windows` : "Making the trimap…",
  matte: (done, total) => total ? `Computing: ${done} of ${total} windows` : "Computing…",
  outputs: (done, total) => total ? `Writing: ${done} of ${total} files` : "Writing…",
};

const find = (id) => document.getElementById(id);
const canvas = find("canvas"), camera = new Camera(), screen = new Screen(canvas, camera);
const scene = { photo: null, labels: null, view: "edit", split: 0, colour: "#20b15a", box: null, cursor: null, radius: 30 };
const state = { file: null, name: "", files: {}, busy: false, task: null, next: null, pointers: new Map(), stroke: null };

// ---- messages

function report(text, failed = false) {
  const status = find("status");
  status.textContent = text;
  status.classList.toggle("error", failed);
}

/** Run one step; buttons are off meanwhile, an error is shown and nothing is lost. */
async function step(text, work) {
  if (state.busy) return;
  state.busy = true;
  endStroke();
  const task = state.task = { id: null, cancelled: false, aborting: new AbortController() };
  report(text);
  const bar = find("progress"), focused = document.activeElement;
  bar.hidden = false;
  bar.removeAttribute("value");
  enable();
  try {
    await work(task);
  } catch (error) {
    if (task.cancelled) report("Cancelled.");
    else report(error.message, true);
  } finally {
    stoppable(false);
    state.busy = false;
    state.task = null;
    find("progress").hidden = true;
    enable();
    // A control that is off loses the keyboard's focus.
    if (document.activeElement === document.body) focused.focus({ preventScroll: true });
    refresh();
  }
  const file = state.next;
  state.next = null;
  if (file) await open(file);
}

/** Show the button that cancels the present step, or hide it. */
function stoppable(is) {
  if (!is && document.activeElement === find("cancel")) find("canvas").focus();
  find("cancel").hidden = !is;
}

function enable() {
  const loaded = scene.photo !== null && !state.busy;
  find("brushes").disabled = !loaded;
  find("steps").disabled = find("run").disabled = !loaded;
  find("views").disabled = !(loaded && scene.cutout);
  find("save-cutout").disabled = find("save-alpha").disabled = !state.files.cutout;
  find("band").disabled = !scene.labels?.proposal;
  find("save-trimap").disabled = !scene.labels?.done.length;
  find("open").disabled = state.busy;
}

function refresh() {
  screen.refresh(scene);
  const { labels } = scene;
  find("undo").disabled = !labels?.done.length;
  find("redo").disabled = !labels?.undone.length;
  showBand(labels?.proposal?.band ?? 0);
  showBrush();
}

function showBand(pixels) {
  find("band").value = pixels;
  find("band-value").textContent = `${pixels} px`;
}

/** A circle of the brush's size as the pointer's cursor; a hand where dragging pans. */
function showBrush() {
  const wide = Math.round(scene.radius * 2 * camera.scale / screen.ratio);
  let cursor = scene.photo && scene.view !== "edit" ? "grab" : "crosshair";
  if (scene.photo && scene.view === "edit" && brush() !== "box" && wide >= 6 && wide <= LARGEST_CURSOR) {
    const size = wide + 2, middle = size / 2;
    const circle = (colour, line) => `<circle cx='${middle}' cy='${middle}' r='${wide / 2 - 0.5}' fill='none' stroke='${colour}' stroke-width='${line}'/>`;
    const svg = `<svg xmlns='http://www.w3.org/2000/svg' width='${size}' height='${size}'>${circle("black", 2)}${circle("white", 1)}</svg>`;
    cursor = `url("data:image/svg+xml,${encodeURIComponent(svg)}") ${Math.floor(middle)} ${Math.floor(middle)}, crosshair`;
  }
  if (canvas.style.cursor !== cursor) canvas.style.cursor = cursor;
}

// ---- photograph

/** Decode a file upright. */
async function readPicture(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`This browser cannot show ${file.name}. Use JPEG, PNG or WebP here; the API takes TIFF too.`);
  }
}

/** Open a photograph; one that comes during a step is opened after it, and the server's work is cancelled for it. */
async function open(file) {
  if (state.busy) {
    state.next = file;
    report(`${file.name} is opened as soon as the present step is over…`);
    await cancel();
    return;
  }
  await step(`Reading ${file.name}…`, async () => {
    const bitmap = await readPicture(file);
    // Both before anything is replaced: a photograph that does not fit into memory leaves the present one.
    const labels = new Labels(bitmap.width, bitmap.height), photo = await Pyramid.of(bitmap);
    scene.photo?.close();
    Object.assign(scene, { photo, labels });
    forget();
    Object.assign(state, { file, name: file.name.replace(/\.[^.]*$/, "") });
    Object.assign(scene, { box: null, cursor: null });
    find("hint").hidden = true;
    screen.resize();
    camera.fit(bitmap.width, bitmap.height, screen.width, screen.height);
    const pixels = Math.max(4, Math.round(BRUSH * screen.ratio / camera.scale));
    find("size").max = Math.max(200, 2 * pixels);
    setSize(pixels);
    report(`${file.name}, ${bitmap.width} × ${bitmap.height}. ${FIRST_STEP}`);
  });
}

/** Take another picture behind the cut-out. */
async function openBackdrop(file) {
  await step(`Reading ${file.name}…`, async () => {
    const picture = await readPicture(file);
    scene.picture?.close();
    scene.picture = picture;
    report(`${file.name} is behind the cut-out.`);
  });
}

/** Drop the result of an earlier photograph or trimap. */
function forget() {
  scene.alpha?.close();
  scene.cutout?.close();
  scene.alpha = scene.cutout = null;
  outdate();
}

/** Keep a result that belongs to another trimap only to be looked at: it shows where the trimap is wrong. */
function outdate() {
  state.files = {};
  show("edit");
}

// ---- trimap

/** Report what is missing before anything is sent; returns whether the marks suffice. */
function marked() {
  const { labels, box } = scene;
  if (labels.complete || box) return true;
  const missing = [[BACKGROUND, "background"], [FOREGROUND, "foreground"]].filter(([level]) => !labels.data.includes(level));
  if (missing.length === 0) return true;
  report(`Draw over the ${missing.map(([, name]) => name).join(" and the ")} first, or draw a box around the object.`, true);
  return false;
}

/** Propose a trimap for all strokes so far. */
async function propose() {
  if (!marked()) return;
  const strokes = scene.labels.strokes();
  if (strokes.complete) {
    report("Everything is marked: nothing is left to propose.");
    return;
  }
  await step("Proposing a trimap…", async (task) => {
    await renew(task, strokes);
    report("Check the blue band: hair and soft edges belong inside. Correct it with the brushes, then compute.");
  });
}

/** The server's trimap for strokes and the box; a PNG. */
async function proposed(task, strokes) {
  stoppable(true);
  const parts = { image: state.file, scribbles: await strokes.png(), box: boxText(), band: 0 };
  return api.trimap(parts, task.aborting.signal);
}

/** Take a new proposal in place of the last one, with the band that the last one was given. */
async function renew(task, strokes) {
  const band = scene.labels.proposal?.band ?? 0;
  await take(await proposed(task, strokes));
  if (band) await widened(task, band);
}

async function take(blob) {
  scene.labels.propose(await Labels.read(blob, scene.labels.width, scene.labels.height), blob, usedBox());
  scene.box = null;
  outdate();
}

/** Give the last proposal another band. */
async function widened(task, pixels) {
  stoppable(true);
  const blob = await api.trimap({ trimap: scene.labels.proposal.file, band: pixels }, task.aborting.signal);
  scene.labels.widen(await Labels.read(blob, scene.labels.width, scene.labels.height), pixels);
  outdate();
}

async function widen(pixels) {
  await step("Changing the unknown band…", async (task) => {
    await widened(task, pixels);
    const width = pixels === 0 ? "as wide as" : `${Math.abs(pixels)} px ${pixels < 0 ? "narrower" : "wider"} than`;
    report(`The unknown band is ${width} proposed. Your corrections are kept.`);
  });
}

/** The box that was drawn last, also if an earlier proposal was made of it. */
function usedBox() {
  return scene.box ?? scene.labels.proposal?.box ?? null;
}

function boxText() {
  const box = usedBox();
  if (!box) return null;
  const { left, top, right, bottom } = box;
  return [left, top, right - left, bottom - top].join(",");
}

// ---- matte

async function compute() {
  if (!marked()) return;
  await step("Sending…", async (task) => {
    const strokes = scene.labels.strokes();
    // A box that was drawn after the last proposal changes the trimap, too.
    if (!strokes.complete && (scene.box || !scene.labels.complete)) {
      report("Proposing a trimap for what is not marked…");
      await renew(task, strokes);
      report("Sending…");
    }
    const trimap = await scene.labels.png();
    const started = performance.now();
    const warnings = await computed(task, trimap);
    stoppable(false);
    report("Fetching the result…");
    const [alpha, cutout] = await Promise.all([api.result(task.id, "alpha"), api.result(task.id, "cutout")]);
    forget();
    state.files = { alpha, cutout };
    [scene.alpha, scene.cutout] = await Promise.all([Pyramid.of(alpha), Pyramid.of(cutout)]);
    show("checker");
    find("views").scrollIntoView({ block: "nearest" });
    const advice = warnings.length ? `Warning: ${warnings.join("; ")}.` : "Look at it over colours and pictures, correct the trimap, or download.";
    report(`Done in ${((performance.now() - started) / 1000).toFixed(1)} s. ${advice}`);
  });
}

/** Start a job and show its progress until it is done; returns its warnings, and fails if it was cancelled. */
async function computed(task, trimap) {
  task.id = api.identity();
  stoppable(true);
  if (!task.cancelled) await api.start(task.id, { image: state.file, trimap }, task.aborting.signal);
  task.started = true;
  if (!task.cancelled) report("Waiting for its turn…");
  const bar = find("progress");
  let warnings;
  try {
    warnings = await api.follow(task.id, ({ phase, done, total }) => {
      if (task.cancelled || phase === null) return;
      if (total) bar.value = done / total;
      else bar.removeAttribute("value");
      report(PHASES[phase](done, total));
    });
  } catch (error) {
    // The server need not keep the files of a job that failed; one that was cancelled is gone.
    if (error.failed && !task.cancelled) await api.cancel(task.id);
    throw error;
  }
  // The job may be done just before the request to cancel it arrives.
  if (task.cancelled) throw new Error("cancelled");
  return warnings;
}

/** Cancel the present step: a request that has no response yet is aborted, and a job is ended. */
async function cancel() {
  const { task } = state;
  if (!task || task.cancelled || find("cancel").hidden) return;
  task.cancelled = true;
  if (!state.next) report("Cancelling: the present window is finished first…");
  // The events of a job are followed until the server has ended it.
  if (!task.started) task.aborting.abort();
  try {
    if (task.id) await api.cancel(task.id);
  } catch (error) {
    if (task !== state.task) return;
    task.cancelled = false;
    report(error.message, true);
  }
}

async function download(kind) {
  const { labels } = scene;
  const blob = kind === "trimap" ? await labels.png() : state.files[kind];
  if (!blob) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${state.name}-${kind === "trimap" && !labels.complete ? "scribbles" : kind}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  report(`Saved ${link.download}.`);
}

// ---- brushes

function setSize(pixels) {
  scene.radius = pixels / 2;
  find("size").value = pixels;
  find("size-value").textContent = `${pixels} px`;
  refresh();
}

function brush() {
  const { value } = document.querySelector('input[name="brush"]:checked');
  return value === "box" ? "box" : Number(value);
}

function choose(name, value) {
  const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
  // Views of the result need one, also while the tools are off because a step runs.
  if (name === "view" && value !== "edit" && !scene.cutout) return;
  if (!input || input.closest("fieldset").disabled && !state.busy) return;
  input.checked = true;
  show(name === "view" ? value : "edit");
}

/** Show a view; a brush that is chosen shows the trimap, where it draws. */
function show(view) {
  scene.view = view;
  document.querySelector(`input[name="view"][value="${view}"]`).checked = true;
  find("colour-row").hidden = view !== "colour";
  find("picture-row").hidden = view !== "picture";
  if (view === "picture" && !scene.picture) report("Choose a picture to lay behind the cut-out.");
  refresh();
}

/** Screen coordinates of an event, in pixels of the canvas. */
function place(event) {
  const { left, top } = canvas.getBoundingClientRect();
  return [(event.clientX - left) * screen.ratio, (event.clientY - top) * screen.ratio];
}

function press(event) {
  if (!scene.photo || state.busy) return;
  canvas.setPointerCapture(event.pointerId);
  state.pointers.set(event.pointerId, place(event));
  scene.cursor = null;
  const panning = event.button === 1 || event.button === 2 || state.pointers.size > 1 || scene.view !== "edit";
  if (panning) {
    // The second finger of a pinch: the first one was not meant to draw.
    if (state.stroke === "draw") scene.labels.cancel();
    if (state.stroke === "box") scene.box = null;
    state.stroke = "pan";
    refresh();
    return;
  }
  const [x, y] = camera.toImage(...place(event));
  const kind = brush();
  if (kind === "box") {
    state.stroke = "box";
    state.corner = [x, y];
    scene.box = { left: x, top: y, right: x, bottom: y };
    return;
  }
  state.stroke = "draw";
  screen.touch(scene, scene.labels.begin(x, y, scene.radius, kind));
}

function move(event) {
  const before = state.pointers.get(event.pointerId);
  if (!before) return;
  if (state.stroke === "draw") {
    for (const point of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      screen.touch(scene, scene.labels.extend(...camera.toImage(...place(point))));
    }
  } else if (state.stroke === "box") {
    const [x, y] = camera.toImage(...place(event));
    const [x0, y0] = state.corner;
    scene.box = { left: Math.min(x, x0), top: Math.min(y, y0), right: Math.max(x, x0), bottom: Math.max(y, y0) };
    refresh();
  } else if (state.stroke === "pan") {
    drag(event, before);
    refresh();
  }
  state.pointers.set(event.pointerId, place(event));
}

/** One pointer pans; two pan by their middle and zoom by their distance. */
function drag(event, before) {
  const now = place(event);
  const others = [...state.pointers].filter(([id]) => id !== event.pointerId);
  if (others.length === 0) {
    camera.pan(now[0] - before[0], now[1] - before[1]);
    return;
  }
  const [, other] = others[0];
  const distance = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
  camera.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  camera.zoom(distance(now) / Math.max(1, distance(before)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
}

function release(event) {
  if (!state.pointers.delete(event.pointerId)) return;
  if (state.stroke === "box" && scene.box) {
    scene.box = within(scene.box, scene.labels);
    forgetError();
  }
  if (state.stroke === "draw") forgetResult();
  if (state.pointers.size === 0) state.stroke = null;
  refresh();
}

/** The part of a box that lies on the image; null if hardly anything does. */
function within(box, { width, height }) {
  const left = Math.max(0, Math.round(box.left)), top = Math.max(0, Math.round(box.top));
  const right = Math.min(width, Math.round(box.right)), bottom = Math.min(height, Math.round(box.bottom));
  return right - left < 2 || bottom - top < 2 ? null : { left, top, right, bottom };
}

/** Replace an error by the first step: what was just drawn may have mended it. */
function forgetError() {
  if (find("status").classList.contains("error")) report(FIRST_STEP);
}

/** End what the pointers draw, as it is: a key or another finger has changed what they draw on. */
function endStroke() {
  if (state.stroke === "box" && scene.box) scene.box = within(scene.box, scene.labels);
  if (state.stroke === "draw") forgetResult();
  state.stroke = null;
}

function forgetResult() {
  forgetError();
  if (state.files.cutout) {
    outdate();
    report("The trimap has changed; the views show the last result until you compute the matte again.");
  }
  enable();
}

// ---- keyboard

const KEYS = {
  f: () => choose("brush", FOREGROUND), b: () => choose("brush", BACKGROUND), u: () => choose("brush", UNKNOWN),
  r: () => choose("brush", "box"), o: () => find("file").click(),
  1: () => choose("view", "edit"), 2: () => choose("view", "alpha"), 3: () => choose("view", "checker"),
  4: () => choose("view", "colour"), 5: () => choose("view", "picture"),
  "[": () => setSize(Math.max(2, Math.round(scene.radius * 1.6))),
  "]": () => setSize(Math.min(Number(find("size").max), Math.round(scene.radius * 2.5))),
  escape: () => cancel(),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => fit(),
};

function key(event) {
  const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  if (undo) {
    event.preventDefault();
    event.shiftKey ? redo() : back();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input[type="text"], input[type="color"]')) return;
  if (event.target === canvas && scene.photo && steer(event)) return;
  KEYS[event.key.toLowerCase()]?.();
}

/** Arrow keys move a cursor and the space bar draws with it; with Shift they pan. */
function steer(event) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const way = ways[event.key];
  if (!way && event.key !== " ") return false;
  event.preventDefault();
  if (state.busy || state.stroke) return true;
  if (way && event.shiftKey) {
    camera.pan(-way[0] * 60, -way[1] * 60);
  } else if (way) {
    scene.cursor ??= { x: scene.photo.width / 2, y: scene.photo.height / 2 };
    const reach = Math.max(1, scene.radius / 2);
    scene.cursor.x = Math.min(scene.photo.width, Math.max(0, scene.cursor.x + way[0] * reach));
    scene.cursor.y = Math.min(scene.photo.height, Math.max(0, scene.cursor.y + way[1] * reach));
  } else if (scene.cursor && scene.view === "edit" && brush() !== "box") {
    scene.labels.begin(scene.cursor.x, scene.cursor.y, scene.radius, brush());
    forgetResult();
  }
  refresh();
  return true;
}

function back() {
  if (state.busy) return;
  endStroke();
  const undone = scene.labels?.undo();
  // The box of a proposal is there again, as it was before.
  if (undone?.box !== scene.labels?.proposal?.box) scene.box = undone?.box ?? scene.box;
  if (undone) changed("Undone.");
}

function redo() {
  if (state.busy) return;
  endStroke();
  const redone = scene.labels?.redo();
  if (redone?.data) scene.box = null;
  if (redone) changed("Done again.");
}

function changed(text) {
  forgetResult();
  report(text);
  enable();
  refresh();
}

function zoom(factor) {
  if (!scene.photo) return;
  camera.zoom(factor, screen.width / 2, screen.height / 2);
  refresh();
}

function fit() {
  if (!scene.photo) return;
  camera.fit(scene.photo.width, scene.photo.height, screen.width, screen.height);
  refresh();
}

// ---- events

function listen() {
  find("open").addEventListener("click", () => find("file").click());
  find("file").addEventListener("change", ({ target }) => { if (target.files[0]) open(target.files[0]); target.value = ""; });
  const stage = find("stage");
  // Anywhere: a file that is dropped beside the picture would replace the page, and the strokes with it.
  document.addEventListener("dragover", (event) => { event.preventDefault(); stage.classList.add("over"); });
  document.addEventListener("dragleave", () => stage.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) open(file);
    else if (!state.busy) report("That was no file: save the picture first, then drop or open its file.", true);
  });
  canvas.addEventListener("pointerdown", press);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    camera.zoom(Math.exp(-event.deltaY / 400), ...place(event));
    refresh();
  }, { passive: false });
  document.addEventListener("keydown", key);
  find("undo").addEventListener("click", back);
  find("redo").addEventListener("click", redo);
  find("clear").addEventListener("click", () => { endStroke(); scene.labels.clear(); scene.box = null; forgetResult(); enable(); refresh(); });
  find("size").addEventListener("input", ({ target }) => setSize(Number(target.value)));
  find("propose").addEventListener("click", propose);
  find("run").addEventListener("click", compute);
  find("cancel").addEventListener("click", cancel);
  // A job whose page is closed would keep the server busy for nothing.
  addEventListener("pagehide", () => {
    state.task?.aborting.abort();
    if (state.task?.id) api.cancel(state.task.id, { keepalive: true });
  });
  find("band").addEventListener("input", ({ target }) => showBand(Number(target.value)));
  find("band").addEventListener("change", ({ target }) => widen(Number(target.value)));
  for (const input of document.querySelectorAll('input[name="view"]')) input.addEventListener("change", () => show(input.value));
  for (const input of document.querySelectorAll('input[name="brush"]')) input.addEventListener("change", () => show("edit"));
  find("split").addEventListener("input", ({ target }) => { scene.split = target.value / 100; refresh(); });
  find("colour").addEventListener("input", ({ target }) => { scene.colour = target.value; refresh(); });
  find("picture").addEventListener("click", () => find("picture-file").click());
  find("picture-file").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) await openBackdrop(file);
  });
  find("save-cutout").addEventListener("click", () => download("cutout"));
  find("save-alpha").addEventListener("click", () => download("alpha"));
  find("save-trimap").addEventListener("click", () => download("trimap"));
  find("zoom-in").addEventListener("click", () => zoom(1.25));
  find("zoom-out").addEventListener("click", () => zoom(0.8));
  find("zoom-fit").addEventListener("click", fit);
  new ResizeObserver(() => { screen.resize(); camera.fitted ? fit() : refresh(); }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
}

listen();
enable();
