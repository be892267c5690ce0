ARG GO_IMAGE=docker.io/library/golang:1.26
ARG BASE_IMAGE=gcr.io/distroless/static-debian12:nonroot

# Go cross-compiles, so the build runs on the builder's own platform.
FROM --platform=${BUILDPLATFORM} ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/cachewright ./cmd

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.source=https://github.com/cachewright/cachewright org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/cachewright /cachewright
# By number, so that runAsNonRoot can check it.
USER 65532:65532
ENTRYPOINT ["/cachewright"]
