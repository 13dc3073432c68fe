// The OpenAPI document as a page, without anything from elsewhere.

const place = document.getElementById("operations");

function make(kind, text = "", ...children) {
  const made = document.createElement(kind);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function typeOf(schema, root) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const some = schema.anyOf || schema.oneOf;
  if (some) return some.map((one) => typeOf(one, root)).join(" | ");
  if (schema.prefixItems) return `[${schema.prefixItems.map((one) => typeOf(one, root)).join(", ")}]`;
  if (schema.type === "array") return `list of ${typeOf(schema.items, root) || "values"}`;
  if (schema.type === "object" && schema.additionalProperties?.type) return `object of ${schema.additionalProperties.type}`;
  return [schema.type || "any", bounds(schema)].filter(Boolean).join(" ");
}

function bounds(schema) {
  const told = [];
  if (schema.minimum !== undefined || schema.maximum !== undefined) told.push(`${schema.minimum ?? ""}…${schema.maximum ?? ""}`);
  if (schema.maxLength !== undefined) told.push(`up to ${schema.maxLength} characters`);
  if (schema.format) told.push(`(${schema.format})`);
  return told.join(", ");
}

function table(rows) {
  return make("table", "", ...rows.map((cells) => make("tr", "", ...cells.map((cell, i) => make(i ? "td" : "th", cell)))));
}

function fields(schema, root) {
  const whole = schema.$ref ? root.components.schemas[schema.$ref.split("/").pop()] : schema;
  const needed = new Set(whole.required || []);
  return table(Object.entries(whole.properties || {}).map(([name, about]) => [
    name, typeOf(about, root) + (needed.has(name) ? ", needed" : about.default != null ? `, ${JSON.stringify(about.default)} by default` : ""),
    about.description || "",
  ]));
}

function operation(path, method, about, root) {
  const head = make("summary", "", make("b", method.toUpperCase()), make("code", path), make("span", about.summary || ""));
  const box = make("details", "", head, make("p", about.description || ""));
  if (about.parameters?.length) {
    box.append(make("h3", "Parameters"), table(about.parameters.map((one) => [
      one.name, `${typeOf(one.schema, root)}${one.required ? ", needed" : ""}`, one.description || one.schema.description || ""])));
  }
  for (const [kind, body] of Object.entries(about.requestBody?.content || {})) {
    box.append(make("h3", `Body (${kind})`), fields(body.schema, root));
  }
  box.append(make("h3", "Answers"));
  box.append(table(Object.entries(about.responses).map(([status, answer]) => {
    const [kind, body] = Object.entries(answer.content || {})[0] || ["", null];
    return [status, body ? typeOf(body.schema, root) || kind : kind, answer.description || ""];
  })));
  return box;
}

try {
  const root = await (await fetch("openapi.json")).json();
  const groups = new Map();
  for (const [path, methods] of Object.entries(root.paths)) {
    for (const [method, about] of Object.entries(methods)) {
      const tag = about.tags?.[0] || "other";
      groups.set(tag, [...(groups.get(tag) || []), operation(path, method, about, root)]);
    }
  }
  for (const [tag, boxes] of groups) place.append(make("h2", tag), ...boxes);
  place.append(make("h2", "what is answered"));
  for (const [name, schema] of Object.entries(root.components.schemas)) {
    if (schema.properties) place.append(make("details", "", make("summary", "", make("code", name), make("span", schema.description || "")), fields(schema, root)));
  }
} catch (error) {
  const problem = document.getElementById("problem");
  problem.textContent = `The document cannot be shown: ${error.message}`;
  problem.hidden = false;
}
