// The query of the page, and its way into the address and back.

export const PER_PAGE = 24;
const SIDE = 640; // pixels of a sent picture: models look at fewer

// texts: the details, the last one is in the search box; image: id of an indexed picture; sent: a picture as data URL
export function empty() {
  return { texts: [], image: null, sent: null, like: false, k: PER_PAGE };
}

export function isEmpty(query) {
  return !query.texts.length && !query.image && !query.sent;
}

export function toAddress(query) {
  const parts = new URLSearchParams();
  for (const text of query.texts) parts.append("q", text);
  if (query.image) parts.set("image", query.image);
  if (query.like) parts.set("like", "1");
  if (query.sent) parts.set("sent", "1");
  if (query.k !== PER_PAGE) parts.set("k", query.k);
  const shown = parts.toString();
  return location.pathname + (shown ? `?${shown}` : "");
}

// What the address says; a sent picture is not in it, only in the browser's history.
export function fromAddress(state) {
  const parts = new URLSearchParams(location.search);
  const query = empty();
  query.texts = parts.getAll("q").map((text) => text.trim()).filter(Boolean);
  query.image = parts.get("image") || null;
  query.like = parts.get("like") === "1" && Boolean(query.image);
  query.sent = parts.get("sent") ? state?.sent || null : null;
  query.lost = Boolean(parts.get("sent")) && !query.sent;
  const k = Number.parseInt(parts.get("k"), 10);
  if (k > 0) query.k = k;
  return query;
}

export function toBody(query, most) {
  const body = { texts: query.texts, k: Math.min(query.k, most) };
  if (query.image) body.image = query.image;
  if (query.sent) body.picture = query.sent;
  if (query.like) body.drop_reference = true;
  return body;
}

// A picture file as a small JPEG. What this browser cannot read goes to the server as it is.
export async function shrink(file) {
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const brush = canvas.getContext("2d");
    brush.fillStyle = "#fff"; // under transparency, as the server does
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", 0.9);
  } catch {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
      reader.readAsDataURL(file);
    });
  }
}
