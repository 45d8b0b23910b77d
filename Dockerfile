# One image for every service: `voting vote`, `voting worker`, `voting result`, `voting admin`, `voting migrate`, …

FROM python:3.13-slim AS build
WORKDIR /build
# Lock file to install: service, or cloud, which adds the extra `cloud` of pyproject.toml.
ARG LOCK=service
# Dependencies have a layer of their own, which is rebuilt only if the lock file changes.
COPY requirements/${LOCK}.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/voting \
 && pip --python /opt/voting/bin/python install --no-cache-dir --require-hashes -r "requirements/${LOCK}.txt" \
 && python -m venv --without-pip /opt/build \
 && pip --python /opt/build/bin/python install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/python -m hatchling build -t wheel \
 && pip --python /opt/voting/bin/python install --no-cache-dir --no-deps dist/*.whl


FROM python:3.13-slim
LABEL org.opencontainers.image.title="voting" \
      org.opencontainers.image.description="A voting application that people can rely on" \
      org.opencontainers.image.licenses="MIT"
# A named volume inherits the owner of the directory that it is mounted on. `voting secrets` writes to the volumes below
# /volumes. Caddy's data is among them so that it belongs to this user, because Caddy's own image has only root.
RUN groupadd --gid 10001 voting \
 && useradd --uid 10001 --gid voting --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin voting \
 && for name in secrets vote worker result admin migrate db redis grafana caddy cloudwatch; do install -d -o voting -g voting "/volumes/$name"; done
COPY --from=build /opt/voting /opt/voting
ENV PATH=/opt/voting/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["voting"]
CMD ["--help"]
