// uPlot, as far as the charts use it: a classic script that sets `window.uPlot`.

declare namespace Plot {
  type Values = (number | null)[];

  interface Instance {
    data: [number[], ...Values[]];
    cursor: { idx?: number | null };
    ctx: CanvasRenderingContext2D;
    bbox: { left: number; top: number; width: number; height: number };
    setData(data: [number[], ...Values[]]): void;
    setSize(size: { width: number; height: number }): void;
    valToPos(value: number, scale: string, isCanvas?: boolean): number;
    destroy(): void;
  }

  interface Axis {
    scale?: string;
    side?: number;
    stroke?: string;
    font?: string;
    size?: number;
    gap?: number;
    space?: number;
    incrs?: number[];
    grid?: { show?: boolean; stroke?: string; width?: number };
    ticks?: { show: boolean };
    values?: (self: Instance, ticks: number[], axis: number, space: number, step: number) => string[];
  }

  interface Line {
    label?: string;
    scale?: string;
    stroke?: string;
    width?: number;
    fill?: string;
    paths?: object;
    points?: { show: boolean };
  }

  interface Options {
    width: number;
    height: number;
    padding: number[];
    legend: { show: boolean };
    cursor: object;
    scales: Record<string, { range: (self: Instance, low: number, high: number) => [number, number] }>;
    tzDate?: (second: number) => Date;
    axes: Axis[];
    series: Line[];
    hooks: Record<string, ((self: Instance) => void)[]>;
  }

  interface Constructor {
    new (options: Options, data: [number[], ...Values[]], parent: HTMLElement): Instance;
    tzDate(date: Date, zone: string): Date;
    paths: { bars(options: { size: [number, number]; align: number }): object };
  }
}

interface Window {
  uPlot: Plot.Constructor;
}
