// Plots: uPlot in the page's colours, with a legend that can be read and heard.

import { html, useCell, useEffect, useLayoutEffect, useRef, useState } from "./view.js";
import { clock, dates, moment } from "./format.js";
import { zone } from "./zone.js";
import { language, t } from "./i18n.js";
import { themed } from "./shell.js";

/** @type {Promise<Plot.Constructor> | null} */
let loading = null;

/**
 * uPlot is published as a classic script: loaded once, when the first plot is drawn.
 * @returns {Promise<Plot.Constructor>}
 */
function load() {
  loading ??= new Promise((resolve, reject) => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = "/admin/assets/vendor/uPlot.min.css";
    const script = document.createElement("script");
    script.src = "/admin/assets/vendor/uPlot.iife.min.js";
    script.onload = () => resolve(window.uPlot);
    script.onerror = () => ((loading = null), reject(new Error("uPlot")));
    document.head.append(sheet, script);
  });
  return loading;
}

/** The colours of the palette that a chart paints with, as a canvas takes them: resolved for the theme. */
function palette() {
  const probe = document.createElement("i");
  document.body.append(probe);
  const style = getComputedStyle(probe);
  /** @type {(name: string, share?: number) => string} */
  const colour = (name, share = 100) => {
    probe.style.color = `color-mix(in srgb, var(--${name}) ${share}%, transparent)`;
    return style.color;
  };
  /** @type {Record<string, {full: string, soft: string}>} */
  const made = {};
  for (const name of ["muted", "line", "accent", "busy", "edge", "bad", "warn"])
    made[name] = { full: colour(name), soft: colour(name, 13) };
  probe.remove();
  return made;
}
const HEIGHT = 180;

/**
 * A tick without the zeros that say nothing: 2.00 s is 2 s.
 * @param {string} text
 */
const short = (text) => text.replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");
// plots of one page share their cursor
const SYNC = "page";

/**
 * `t`: moments in milliseconds. `series`: `{label, values, colour, format, kind: "line" | "bars" | "area"}`.
 * `format`: of the values; `incrs`: the steps that its ticks may have. `own` gives a line a scale of its own,
 * at the right. `marks`: `{at, ok, what}`, drawn as upright lines.
 * @param {{
 *   label: string, t?: number[], series: Page.Line[], marks?: Api.Reload[],
 *   format: (value: number | null | undefined) => string, incrs?: number[]
 * }} props
 */
export function Chart({ label, t: moments, series, marks = [], format, incrs }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const legend = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {Plot.Instance | null} */ (null));
  const [uPlot, setPlot] = useState(/** @type {Plot.Constructor | null} */ (null));
  const theme = useCell(themed);
  const lang = useCell(language);
  const seen = useRef(marks);
  seen.current = marks;

  useEffect(() => {
    let isHere = true;
    load().then(
      (made) => isHere && setPlot(() => made),
      () => {},
    );
    return () => (isHere = false);
  }, []);

  const shape = series.map((line) => line.label + line.kind + line.colour).join() + theme + lang + zone();

  useLayoutEffect(() => {
    const place = frame.current;
    if (!uPlot || !place) return;
    const colours = palette();
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    /** @type {(self: Plot.Instance, at: number | null | undefined) => void} */
    const say = (self, at) => {
      series.forEach((line, i) => {
        const value = self.data[i + 1][at ?? self.data[0].length - 1];
        const cell = legend.current?.children[i]?.lastChild;
        if (cell) cell.textContent = (line.format ?? format)(value);
      });
      const stamp = legend.current?.lastChild;
      if (stamp)
        stamp.textContent =
          at == null
            ? ""
            : (self.data[0].at(-1) ?? 0) - self.data[0][0] > 86_400
              ? moment(self.data[0][at] * 1000)
              : clock(self.data[0][at] * 1000);
    };
    const axis = {
      stroke: colours.muted.full,
      font,
      grid: { stroke: colours.line.full, width: 1 },
      ticks: { show: false },
    };
    /** @type {Plot.Axis} */
    const upright = {
      size: 58,
      gap: 6,
      space: 36,
      ...(incrs ? { incrs } : {}),
      values: (_, ticks) => ticks.map((value) => short(format(value))),
    };
    /** @type {(_: Plot.Instance, low: number, high: number) => [number, number]} */
    const range = (_, __, high) => [0, high > 0 ? high * 1.08 : 1];
    const made = new uPlot(
      {
        width: place.clientWidth,
        height: HEIGHT,
        padding: [8, 18, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: SYNC }, y: false, points: { size: 7 }, drag: { x: false, y: false } },
        scales: { y: { range }, own: { range } },
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone()),
        axes: [
          {
            ...axis,
            size: 26,
            gap: 6,
            space: 70,
            grid: { show: false },
            values: (_, ticks, __, ___, step) =>
              ticks.map((at) =>
                dates(
                  step >= 86_400
                    ? { month: "short", day: "numeric" }
                    : step < 60
                      ? { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }
                      : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
                ).format(at * 1000),
              ),
          },
          { ...axis, ...upright },
          ...(series.some((line) => line.own)
            ? [{ ...axis, ...upright, scale: "own", side: 1, grid: { show: false } }]
            : []),
        ],
        series: [
          {},
          ...series.map((line) => {
            const { full: stroke, soft } = colours[line.colour];
            return {
              label: line.label,
              scale: line.own ? "own" : "y",
              stroke,
              width: line.kind === "bars" ? 0 : 1.5,
              fill: line.kind === "bars" ? stroke : line.kind === "area" ? soft : undefined,
              paths: line.kind === "bars" ? uPlot.paths.bars({ size: [0.8, 24], align: 1 }) : undefined,
              points: { show: false },
            };
          }),
        ],
        hooks: {
          setCursor: [(self) => say(self, self.cursor.idx)],
          setData: [(self) => say(self, self.cursor.idx)],
          draw: [
            (self) => {
              const { ctx, bbox } = self;
              ctx.save();
              for (const mark of seen.current) {
                const x = self.valToPos(mark.at / 1000, "x", true);
                if (x < bbox.left || x > bbox.left + bbox.width) continue;
                ctx.strokeStyle = colours[mark.ok ? "accent" : "bad"].full;
                ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
                ctx.lineWidth = devicePixelRatio;
                ctx.beginPath();
                ctx.moveTo(x, bbox.top);
                ctx.lineTo(x, bbox.top + bbox.height);
                ctx.stroke();
              }
              ctx.restore();
            },
          ],
        },
      },
      [[0], ...series.map(() => [null])],
      place,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: place.clientWidth, height: HEIGHT }));
    watch.observe(place);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [uPlot, shape]);

  useLayoutEffect(() => {
    if (moments?.length)
      plot.current?.setData([moments.map((at) => at / 1000), ...series.map((line) => line.values)]);
  }, [uPlot, shape, moments, series.map((line) => line.values)[0]]);

  return html`
    <figure class="chart" aria-label=${label}>
      <figcaption ref=${legend} class="legend">
        ${series.map(
          (line) => html`
            <span key=${line.label}>
              <i class=${`swatch swatch-${line.colour}`} aria-hidden="true"></i>
              ${line.label} <b></b>
            </span>
          `,
        )}
        <time></time>
      </figcaption>
      <div class="plot" ref=${frame} role="img" aria-label=${t("chart.label", { name: label })}></div>
    </figure>
  `;
}
