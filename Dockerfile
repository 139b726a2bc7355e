# One static program in an empty image: no shell, no package manager, a numeric user.

FROM rust:1.95-alpine AS build
# ring compiles C and assembly; the bundle of CA roots goes into the image
RUN apk add --no-cache gcc musl-dev ca-certificates-bundle
WORKDIR /anthropic-proxy
COPY . .
# Dependencies stay compiled in the cache mounts from build to build. `touch` makes cargo compile
# our own crate each time: it compares times, and a checkout may be older than the cache.
# Symbols stay for readable backtraces, debug information does not. Relative relocations take 400 KB
# less when packed; musl reads them since 1.2.4, and Rust has 1.2.5.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/anthropic-proxy/target,sharing=locked \
    touch src/lib.rs src/main.rs \
    && cargo rustc --profile dist --locked --bin anthropic-proxy -- -C link-arg=-Wl,-z,pack-relative-relocs \
    && install -D -m 0755 target/dist/anthropic-proxy /image/anthropic-proxy \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && mkdir -m 0700 /data

FROM scratch
LABEL org.opencontainers.image.title="anthropic-proxy" \
      org.opencontainers.image.description="A transparent, streaming, multi-core reverse proxy for Anthropic-compatible APIs" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /image /
# A place for DATA_DIR: a volume that is mounted here begins with this owner.
COPY --from=build --chown=65532:65532 /data /data
# The files env/.env and env/.env.headers.json are looked for from here: mount a folder at /env.
WORKDIR /
# 65532 is what distroless images call nonroot. A number, since there is no /etc/passwd.
USER 65532:65532
# In a container the port is published on purpose; elsewhere the default is 127.0.0.1.
ENV HOST=0.0.0.0
# A load balancer needs a moment to see that /readyz fails; `docker stop -t 40` leaves streams their time.
ENV DRAIN_DELAY=5
EXPOSE 8088
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s --retries=3 \
    CMD ["/anthropic-proxy", "healthcheck"]
ENTRYPOINT ["/anthropic-proxy"]
