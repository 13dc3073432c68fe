// Calls of the server. Addresses are relative, so that the page also works behind a proxy under a folder.

const KEY = "xretrieve-token";
let token = "";
const blobs = new Set();

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token") || "";
  if (given) {
    remember(given);
    history.replaceState(history.state, "", location.pathname + location.search); // not into bookmarks
  }
  return given;
}

function remembered() {
  try {
    return sessionStorage.getItem(KEY) || "";
  } catch {
    return "";
  }
}

function remember(value) {
  token = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // then it is asked for again when the page is loaded anew
  }
}

function askForToken() {
  const dialog = document.getElementById("ask-token");
  return new Promise((resolve) => {
    if (dialog.open) return resolve(false);
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const value = document.getElementById("token").value.trim();
      if (value) remember(value);
      resolve(Boolean(value));
    }, { once: true });
    dialog.showModal();
  });
}

async function request(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is it still running?");
  }
  if (answer.status === 401 && (await askForToken())) return request(path, options);
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `the server answered ${answer.status}`);
  }
  return answer;
}

token = fromAddress() || remembered();

export async function get(path) {
  return (await request(path)).json();
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body), signal })).json();
}

// An address for <img>. With a token the picture has to be fetched first: <img> sends no headers.
export async function picture(id, size) {
  const path = `api/pictures?${new URLSearchParams({ id, size })}`;
  if (!token) return path;
  const address = URL.createObjectURL(await (await request(path)).blob());
  blobs.add(address);
  return address;
}

export function forgetPictures() {
  for (const address of blobs) URL.revokeObjectURL(address);
  blobs.clear();
}
