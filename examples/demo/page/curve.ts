/** A loss curve on a canvas. */
import { fresh } from './canvas.ts';

/** Draws a number for each step, with its range at the side. */
export function drawCurve(canvas: HTMLCanvasElement, values: readonly number[]): void {
  const { g, width, height, accent, quiet } = fresh(canvas);
  const [left, below, margin] = [30, 22, 8];
  const unit = roundUnit(Math.max(1, ...values) / 4);
  const top = unit * Math.ceil(Math.max(1, ...values) / unit);
  const steps = Math.max(10, values.length);
  const x = (i: number): number => left + (i / steps) * (width - left - margin);
  const y = (v: number): number => margin + (1 - v / top) * (height - below - margin);
  Object.assign(g, { fillStyle: quiet, strokeStyle: quiet, lineWidth: 1, textAlign: 'right', textBaseline: 'middle' });
  for (let v = 0; v <= top + unit / 2; v += unit) {
    g.globalAlpha = 0.25;
    g.beginPath();
    g.moveTo(left, y(v));
    g.lineTo(width - margin, y(v));
    g.stroke();
    g.globalAlpha = 1;
    g.fillText(String(Number(v.toFixed(2))), left - 8, y(v));
  }
  Object.assign(g, { textBaseline: 'alphabetic' });
  g.fillText(`loss, step ${values.length}`, width - margin, height - 5);
  g.fillText('0', left + 4, height - 5);
  Object.assign(g, { strokeStyle: accent, fillStyle: accent, lineWidth: 2, lineJoin: 'round' });
  g.beginPath();
  values.forEach((v, i) => g[i === 0 ? 'moveTo' : 'lineTo'](x(i + 1), y(v)));
  g.stroke();
  if (values.length === 0) return;
  g.beginPath();
  g.arc(x(values.length), y(values.at(-1)!), 3.5, 0, 2 * Math.PI);
  g.fill();
}

/** The next of 1, 2 and 5 times a power of ten. */
function roundUnit(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * ([1, 2, 5].find((n) => n * power >= least) ?? 10);
}
