/** What keeps a request from being answered, as `application/problem+json` (RFC 9457). Codes are those of the gateway. */
export class Problem extends Error {
  /**
   * @param {number} status of HTTP
   * @param {string} code for programs
   * @param {string} detail for people
   * @param {Record<string, unknown>} more what else is told, by name
   */
  constructor(status, code, detail, more = {}) {
    super(detail);
    Object.assign(this, { status, code, more });
  }

  /** As members of a JSON object. */
  toJSON() {
    const { status, code, message, more } = this;
    return { type: `urn:kachet:problem:${code}`, title: TITLES[code] ?? code, status, code, detail: message, ...more };
  }

  toResponse() {
    const headers = { "content-type": "application/problem+json", "cache-control": "no-store" };
    if (this.status === 401) headers["www-authenticate"] = "Bearer";
    if (this.status === 405) headers.allow = this.more.allow;
    if (this.status === 503 || this.code === "beyond-end") headers["retry-after"] = "1";
    return new Response(`${JSON.stringify(this)}\n`, { status: this.status, headers });
  }
}

const TITLES = {
  "internal-error": "The Worker has a defect or is set up wrongly",
  "bad-parameter": "A part of the path or of the query cannot be used",
  "bad-request": "The body cannot be used",
  unauthorised: "A valid bearer token is needed",
  "no-such-resource": "There is nothing under this path",
  "no-such-topic": "The cluster has no such topic",
  "no-such-partition": "The topic has no such partition",
  "no-record-at-offset": "There is no record at this offset",
  "beyond-end": "The log does not hold this offset yet",
  "below-log-start": "The log no longer holds this offset",
  "method-not-allowed": "The resource has no such method",
  "request-too-large": "The body is too large",
  "too-busy": "Too many fetches are on their way",
  "upstream-down": "The gateway cannot be reached, and this is not cached",
  "upstream-error": "The gateway's answer cannot be used",
  "upstream-refuses": "The gateway refuses this Worker",
  "upstream-timed-out": "The gateway did not answer in time",
};
