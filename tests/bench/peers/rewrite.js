// The edit as njs can do it: parse, replace, serialise.
const TEXT = "You are a helpful assistant behind a proxy (replaced system prompt).";

function rewrite(request) {
  const body = request.variables.request_body;
  try {
    const message = JSON.parse(body);
    if (message.system && message.system[0] && message.system[0].text !== undefined) {
      message.system[0].text = TEXT;
      return JSON.stringify(message);
    }
  } catch (fault) {
    // passes as it is
  }
  return body;
}

export default { rewrite };
