// Tables whose rows stay the same elements from look to look: the focus and a selection survive.

import { element, setText } from "./text.js";

export class Table {
  // columns: {title, show(item, cell), class, sort}; `sorting` has sort, reversed and choose(sort).
  constructor(root, caption, columns, key, sorting = null) {
    this.columns = columns;
    this.key = key;
    this.sorting = sorting;
    this.rows = new Map();
    this.heads = columns.map((column) => this.head(column));
    this.body = element("tbody");
    root.append(
      element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, ...this.heads)),
      this.body);
    this.mark();
  }

  head(column) {
    const { sorting } = this;
    if (!sorting || !column.sort) {
      const title = column.quiet ? element("span", { class: "hidden" }, column.title) : column.title;
      return element("th", { scope: "col", class: column.class }, title);
    }
    const button = element("button", { type: "button", class: "sort" }, column.title);
    button.addEventListener("click", () => {
      sorting.choose(column.sort);
      this.mark();
    });
    return element("th", { scope: "col", class: column.class }, button);
  }

  mark() {
    if (!this.sorting) return;
    this.columns.forEach((column, number) => {
      const head = this.heads[number];
      if (column.sort !== this.sorting.sort || !column.sort) head.removeAttribute("aria-sort");
      else {
        const down = Boolean(column.number) !== this.sorting.reversed;
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      }
    });
  }

  show(items) {
    const left = new Map(this.rows);
    let before = null;
    for (const item of items) {
      const key = this.key(item);
      let row = this.rows.get(key);
      if (!row) {
        row = this.row();
        this.rows.set(key, row);
      }
      left.delete(key);
      row.item = item;
      this.columns.forEach((column, number) => column.show(item, row.cells[number], row));
      const next = before ? before.nextSibling : this.body.firstChild;
      if (next !== row.root) this.body.insertBefore(row.root, next);
      before = row.root;
    }
    for (const [key, row] of left) {
      row.root.remove();
      this.rows.delete(key);
    }
  }

  row() {
    const cells = this.columns.map((column, number) => element(
      number === 0 ? "th" : "td",
      { class: column.class, scope: number === 0 ? "row" : null, "data-title": column.title }));
    return { root: element("tr", {}, ...cells), cells };
  }
}

// A column that shows a text.
export function text(title, get, more = {}) {
  return { title, show: (item, cell) => setText(cell, get(item)), ...more };
}

// A column with a button that acts on the item of its row.
export function button(title, label, name, act) {
  return {
    title,
    quiet: true,
    class: "act",
    show: (item, cell, row) => {
      if (!cell.firstChild) {
        const made = element("button", { type: "button", class: "small" }, label);
        made.addEventListener("click", () => act(row.item));
        cell.append(made);
      }
      const full = name(item);
      if (cell.firstChild.getAttribute("aria-label") !== full) {
        cell.firstChild.setAttribute("aria-label", full);
      }
    },
  };
}
