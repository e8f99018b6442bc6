/** The demo page: a digit that is drawn and read, a network that learns to, and where its training step lies on a machine of tiles. */
import { load, type Samples, type Session } from '../../../runtime/index.ts';
import { drawCurve } from './curve.ts';
import { showTiles, type TileMap } from './floor-plan.ts';
import { lasting, type Lasting } from './lasting.ts';
import { drawingPad, side } from './pad.ts';
import { showScores } from './scores.ts';
import { best, readDigits, startTraining, type Training } from './training.ts';

type Backend = 'webgpu' | 'wasm';

const at = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const file = (name: string): URL => new URL(name, document.baseURI);
const radios = [...document.querySelectorAll<HTMLInputElement>('input[name=backend]')];

let classifier: Lasting<Session> | undefined;
/** What the classifier's session has to say. */
let notices: readonly string[] = [];
let training: Training | undefined;
let samples: Samples | undefined;
/** What was chosen; undefined until somebody chooses: WebGPU where there is a GPU. */
let backend: Backend | undefined;
let running = false;
/** Ends when all that was begun has ended: one thing at a time works on sessions. */
let queue: Promise<unknown> = Promise.resolve();

const pad = drawingPad(at('pad'), () => void next(classify));

void next(async () => {
  const opened = open();
  pad.show(await sample());
  const racing = early().catch(() => {});
  await opened;
  await classify();
  sayFirst();
  await racing;
  const map = await (await fetch(file('tiles.json'))).json() as TileMap;
  const showStep = showTiles(map, { canvas: at('tiles'), course: at('course'), slider: at('step'), name: at('step-name'), note: at('tiles-note') });
  const draw = (): void => {
    drawCurve(at('curve'), training?.losses ?? []);
    showStep();
  };
  draw();
  addEventListener('resize', draw);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  document.body.dataset['ready'] = 'true';
});

for (const radio of radios) {
  // Also where it is chosen already: it begins anew.
  radio.addEventListener('click', () => {
    running = false;
    void next(async () => {
      backend = radio.value as Backend;
      await open();
      await classify();
    });
  });
}
at('clear').addEventListener('click', () => {
  pad.clear();
  showScores(at('scores'), undefined);
  at('answer').textContent = at('learnt').textContent = '';
});
at('ten').addEventListener('click', () => void next(() => train(10)));
at('train').addEventListener('click', () => {
  if (running) running = false;
  else void next(() => train(Infinity));
});
at('restart').addEventListener('click', () => {
  running = false;
  void next(endTraining);
});
at<HTMLInputElement>('files').addEventListener('change', ({ target }) => {
  running = false;
  void next(async () => {
    const files = [...(target as HTMLInputElement).files!];
    const chosen = await readDigits(await Promise.all(files.map(async (f) => ({ name: f.name, bytes: new Uint8Array(await f.arrayBuffer()) }))));
    samples = chosen;
    await endTraining();
    sayData(chosen);
  });
});

/** Does some work after what was begun before; what goes wrong is shown. */
function next(work: () => Promise<void>): Promise<void> {
  const result = queue.then(work).then(
    () => void (at('error').textContent = ''),
    (e: unknown) => void (at('error').textContent = e instanceof Error ? e.message : String(e)),
  );
  queue = result;
  return result;
}

/** Reads the first picture by WebAssembly while a GPU's driver compiles shaders, which may take longer than all else; whoever is first answers. What fails here fails again where it is told. */
async function early(): Promise<void> {
  const picture = pad.picture()!;
  if (!(await (navigator as { readonly gpu?: { requestAdapter(): Promise<unknown> } }).gpu?.requestAdapter())) return;
  await using session = await load(file('classifier/'), { backend: 'wasm', threads: 1 });
  const [result] = Object.values(await session.run({ [session.inputs[0]!.name]: picture }));
  if (at('first').textContent !== '' || pad.picture() !== picture) return;
  answer(result!.data as Float32Array, 'WebAssembly, before WebGPU was ready');
  sayFirst();
}

/** Says, once, how long the first answer took. */
function sayFirst(): void {
  if (at('first').textContent !== '') return;
  const { transferSize, encodedBodySize } = performance.getEntriesByType('navigation')[0] as PerformanceNavigationTiming;
  at('first').textContent = `First classification ${performance.now().toFixed(0)} ms after the page was opened${transferSize < encodedBodySize ? ' (cached)' : ''}`;
}

/** Shows scores, and the digit that has most of them. */
function answer(scores: Float32Array, how: string): void {
  showScores(at('scores'), scores);
  at('answer').textContent = `This is a ${best(scores)}. (${how})`;
}

/** Opens the classifier on what was chosen. */
async function open(): Promise<void> {
  await endTraining();
  await classifier?.close();
  const losts: string[] = [];
  classifier = lasting(async () => {
    const session = await load(file('classifier/'), { ...(backend && { backend }) });
    sayPlace(session, losts);
    return session;
  }, ({ message }) => void losts.push(`network loaded again: ${message}`));
  await classifier.use(async () => {});
}

/** Says on what the classifier runs, and what happened on the way. */
function sayPlace(session: Session, losts: readonly string[]): void {
  const webgpu = session.features === 'webgpu';
  for (const r of radios) r.checked = (r.value === 'webgpu') === webgpu;
  // Without a choice, WebAssembly runs where WebGPU cannot; the notice says why.
  if (backend === undefined && !webgpu) radios.find((r) => r.value === 'webgpu')!.disabled = true;
  at('place').textContent = webgpu ? '' : `${session.threads} ${session.threads === 1 ? 'thread' : 'threads'}, module ${session.features}`;
  notices = [...session.notices, ...losts];
  showNotices();
}

/** Shows what classifier and training have to say. */
function showNotices(): void {
  const all = [...new Set([...notices, ...(training?.notices ?? [])])];
  const list = at('notices');
  if (all.join('\n') !== [...list.children].map((li) => li.textContent).join('\n')) list.replaceChildren(...all.map((n) => Object.assign(document.createElement('li'), { textContent: n })));
}

/** Reads what is drawn, with the classifier and with the network that is being trained. */
async function classify(): Promise<void> {
  const picture = pad.picture();
  if (!picture || !classifier) return;
  const [scores, took] = await classifier.use(async (session) => {
    const begun = performance.now();
    const [result] = Object.values(await session.run({ [session.inputs[0]!.name]: picture }));
    return [result!.data as Float32Array, performance.now() - begun];
  });
  answer(scores, `${took.toFixed(1)} ms`);
  at('learnt').textContent = training ? `The network trained here reads ${best(await training.scores(picture))}.` : '';
}

/** Trains for some steps, or until it is stopped. */
async function train(steps: number): Promise<void> {
  running = true;
  at('train').textContent = 'Stop';
  try {
    samples ??= await ownSamples();
    training ??= startTraining(file('trainer/'), samples, backend);
    const { losses } = training;
    const end = losses.length + steps;
    const begun = performance.now();
    for (let taken = 1; losses.length < end && running; taken++) {
      const loss = await training.step();
      showNotices();
      drawCurve(at('curve'), losses);
      const rate = (taken * 1000) / (performance.now() - begun);
      at('progress').textContent = `Step ${losses.length}: loss ${loss.toFixed(4)}, ${rate.toFixed(1)} steps a second.`;
      // Events get their turn, also in a page that is not shown.
      await new Promise((resolve) => setTimeout(resolve));
    }
    const { share, count } = await training.accuracy();
    at('progress').textContent += ` Of ${count} digits held out, ${(100 * share).toFixed(1)} % are read right.`;
    await classify();
  } finally {
    running = false;
    at('train').textContent = 'Train';
  }
}

async function endTraining(): Promise<void> {
  await training?.close();
  training = undefined;
  drawCurve(at('curve'), []);
  at('progress').textContent = at('learnt').textContent = '';
  showNotices();
}

async function ownSamples(): Promise<Samples> {
  const names = ['images.idx3-ubyte.gz', 'labels.idx1-ubyte.gz'];
  const read = await readDigits(await Promise.all(names.map(async (name) => ({ name, bytes: new Uint8Array(await (await fetch(file(name))).arrayBuffer()) }))));
  sayData(read);
  return read;
}

function sayData({ x, name }: Samples): void {
  at('data').textContent = `${x.shape[0]} digits from ${name}, a tenth of them held out.`;
}

/** The picture that the page starts with. */
async function sample(): Promise<Float32Array> {
  const image = await createImageBitmap(await (await fetch(file('digit.png'))).blob());
  const canvas = new OffscreenCanvas(side, side).getContext('2d')!;
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, side, side);
  return Float32Array.from({ length: side * side }, (_, i) => data[4 * i]!);
}
