// Preact and htm, as far as the dashboard uses them: ours, beside the vendored module.

export interface VNode {
  type: unknown;
  props: object;
  key: unknown;
}

export type Child = VNode | string | number | boolean | null | undefined | readonly Child[];

/** The event of a handler in a template: of a field, a button or a form. */
export type FieldEvent = MouseEvent & KeyboardEvent & { target: HTMLInputElement };

/** Value of a template: a child, an attribute, a component or its props, a handler. */
export type Hole = Child | object | ((event: FieldEvent) => unknown);

export function html(strings: TemplateStringsArray, ...values: Hole[]): VNode;
export function render(node: VNode, parent: Element): void;

export function useState<T>(initial: T | (() => T)): [T, (next: T | ((was: T) => T)) => void];
export function useRef<T>(initial: T): { current: T };
export function useMemo<T>(make: () => T, inputs: readonly unknown[]): T;
export function useCallback<T>(callback: T, inputs: readonly unknown[]): T;
export function useEffect(effect: () => void | (() => unknown), inputs?: readonly unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => unknown), inputs?: readonly unknown[]): void;
