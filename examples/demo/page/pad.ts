/** A canvas to draw digits in, and the pictures that MNIST makes of them: 28 by 28, the digit 20 high or wide, its centre of mass in the middle. */

export const side = 28;
const box = 20;

export interface Pad {
  /** The picture, 0 (paper) to 255 (ink), row by row; undefined where nothing is drawn. */
  picture(): Float32Array<ArrayBuffer> | undefined;
  /** Shows a picture of 28 by 28 as it is. */
  show(picture: ArrayLike<number>): void;
  clear(): void;
}

/** Lets the pointer draw on a canvas; `changed` is called after each stroke. */
export function drawingPad(canvas: HTMLCanvasElement, changed: () => void): Pad {
  const ink = canvas.getContext('2d', { willReadFrequently: true })!;
  /** A picture that is shown, not drawn: it is already as MNIST has it. */
  let shown: Float32Array<ArrayBuffer> | undefined;
  const at = (e: PointerEvent): [number, number] => {
    const r = canvas.getBoundingClientRect();
    return [((e.clientX - r.left) * canvas.width) / r.width, ((e.clientY - r.top) * canvas.height) / r.height];
  };
  const clear = (): void => {
    shown = undefined;
    ink.clearRect(0, 0, canvas.width, canvas.height);
  };
  canvas.addEventListener('pointerdown', (e) => {
    if (shown) clear();
    canvas.setPointerCapture(e.pointerId);
    Object.assign(ink, { lineWidth: canvas.width / 14, lineCap: 'round', lineJoin: 'round', strokeStyle: '#fff' });
    ink.beginPath();
    ink.moveTo(...at(e));
    ink.lineTo(...at(e));
    ink.stroke();
  });
  canvas.addEventListener('pointermove', (e) => {
    if (!canvas.hasPointerCapture(e.pointerId)) return;
    ink.lineTo(...at(e));
    ink.stroke();
  });
  canvas.addEventListener('pointerup', (e) => {
    canvas.releasePointerCapture(e.pointerId);
    changed();
  });
  return {
    picture: () => shown ?? centred(canvas, ink),
    show(picture) {
      clear();
      shown = Float32Array.from(picture);
      const pixels = new ImageData(side, side);
      shown.forEach((grey, i) => pixels.data.set([grey, grey, grey, 255], 4 * i));
      const small = new OffscreenCanvas(side, side);
      small.getContext('2d')!.putImageData(pixels, 0, 0);
      ink.imageSmoothingEnabled = false;
      ink.drawImage(small, 0, 0, canvas.width, canvas.height);
      ink.imageSmoothingEnabled = true;
    },
    clear,
  };
}

/** What is drawn, scaled and moved as MNIST's pictures are. */
function centred(canvas: HTMLCanvasElement, ink: CanvasRenderingContext2D): Float32Array<ArrayBuffer> | undefined {
  const { width, height } = canvas;
  const { data } = ink.getImageData(0, 0, width, height);
  let [left, right, top, bottom, mass, sumX, sumY] = [width, -1, height, -1, 0, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const alpha = data[4 * (y * width + x) + 3]!;
      if (alpha === 0) continue;
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
      [mass, sumX, sumY] = [mass + alpha, sumX + alpha * x, sumY + alpha * y];
    }
  }
  if (mass === 0) return undefined;
  const scale = box / Math.max(right - left + 1, bottom - top + 1);
  const small = new OffscreenCanvas(side, side).getContext('2d')!;
  small.fillRect(0, 0, side, side);
  small.imageSmoothingQuality = 'high';
  small.drawImage(canvas, side / 2 - scale * (sumX / mass), side / 2 - scale * (sumY / mass), scale * width, scale * height);
  const { data: grey } = small.getImageData(0, 0, side, side);
  return Float32Array.from({ length: side * side }, (_, i) => grey[4 * i]!);
}
