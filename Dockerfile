# The controller with everything inside: no internet is needed once the image exists.
#   docker build -t burnin .
#   docker run --rm burnin demo --plain
#   docker run --rm -v "$PWD:/work" --network host burnin run /work/suite.yaml /work/rack.yaml --db /work/burnin.db --plain
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY burnin burnin
COPY inventory inventory
COPY test_suites test_suites
RUN python -m venv /opt/burnin && /opt/burnin/bin/pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/burnin /opt/burnin
RUN useradd --create-home --shell /usr/sbin/nologin burnin
ENV PATH=/opt/burnin/bin:$PATH PYTHONUNBUFFERED=1
USER burnin
WORKDIR /home/burnin
ENTRYPOINT ["burnin"]
CMD ["--help"]
