// Shows /openapi.json as a page. Everything is set as text, never as markup.
"use strict";

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const typeOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const any = schema.oneOf || schema.anyOf || schema.allOf;
  if (any) return any.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "any";
  if (schema.items) return `list of ${typeOf(schema.items)}`;
  return schema.format ? `${type} (${schema.format})` : type;
};

const merged = (contract, schema) => {
  if (!schema) return { properties: {}, required: [] };
  if (schema.$ref) return merged(contract, contract.components.schemas[schema.$ref.split("/").pop()]);
  const parts = (schema.allOf || []).map((part) => merged(contract, part));
  const own = { properties: schema.properties || {}, required: schema.required || [] };
  return [...parts, own].reduce((all, part) => ({
    properties: { ...all.properties, ...part.properties },
    required: [...all.required, ...part.required],
  }));
};

const table = (heads, rows) => make("table", {},
  make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", {}, head)))),
  make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))))));

const fields = (contract, title, schema) => {
  const { properties, required } = merged(contract, schema);
  const rows = Object.entries(properties).map(([name, property]) => [
    make("code", {}, name + (required.includes(name) ? "" : "?")),
    make("code", {}, typeOf(property)),
    property.description || "",
  ]);
  const body = rows.length ? table(["field", "type", "meaning"], rows) : make("p", {}, make("code", {}, typeOf(schema)));
  return make("details", {}, make("summary", {}, `${title}: `, make("code", {}, typeOf(schema))), body);
};

const operation = (contract, path, method, spec) => {
  const section = make("section", { id: `${method}-${path}` },
    make("h3", {}, make("span", { class: method }, method.toUpperCase()), ` ${path}`),
    make("p", {}, make("strong", {}, spec.summary || "")));
  if (spec.description) section.append(make("p", {}, spec.description));
  const parameters = spec.parameters || [];
  if (parameters.length) {
    section.append(table(["parameter", "in", "type", "meaning"], parameters.map((parameter) => [
      make("code", {}, parameter.name + (parameter.required ? "" : "?")), parameter.in,
      make("code", {}, typeOf(parameter.schema)), parameter.description || "",
    ])));
  }
  const body = spec.requestBody && Object.values(spec.requestBody.content)[0];
  if (body) section.append(fields(contract, "Request", body.schema));
  for (const [status, response] of Object.entries(spec.responses || {})) {
    const content = response.content && Object.values(response.content)[0];
    if (content && content.schema) section.append(fields(contract, status, content.schema));
    else section.append(make("p", { class: "dim" }, `${status}: ${response.description || ""}`));
  }
  return section;
};

fetch("/openapi.json").then((answer) => answer.json()).then((contract) => {
  const main = document.getElementById("main");
  const tags = new Map();
  main.replaceChildren(make("h1", {}, contract.info.title), make("p", {}, contract.info.description || ""));
  for (const [path, methods] of Object.entries(contract.paths)) {
    for (const [method, spec] of Object.entries(methods)) {
      const tag = (spec.tags || ["other"])[0];
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push([path, method, spec]);
    }
  }
  const index = document.getElementById("index");
  // What people come for stands first.
  const last = ["agent protocol", "health", "docs"];
  const order = [...tags].sort(([a], [b]) => last.indexOf(a) - last.indexOf(b));
  for (const [tag, operations] of order) {
    main.append(make("h2", {}, tag));
    index.append(make("h2", {}, tag), make("ul", {}, ...operations.map(([path, method]) =>
      make("li", {}, make("a", { href: `#${method}-${path}` }, make("span", { class: method }, method.toUpperCase()), ` ${path}`)))));
    for (const [path, method, spec] of operations) main.append(operation(contract, path, method, spec));
  }
}).catch((error) => {
  document.getElementById("main").replaceChildren(make("p", {}, `The contract could not be loaded: ${error}`));
});
