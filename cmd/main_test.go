// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	. "github.com/onsi/gomega"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// counted is a value that counts how often it is encoded.
type counted struct{ times *int }

func (c counted) MarshalLogObject(zapcore.ObjectEncoder) error { *c.times++; return nil }

func TestWhatALoggerIsToldIsEncodedWhenItLogs(t *testing.T) {
	g, times, out := NewWithT(t), 0, &bytes.Buffer{}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"}), zapcore.AddSync(out), zapcore.InfoLevel)
	first := zap.New(core, zap.WrapCore(lazily)).With(zap.String("kind", "CacheEntry"))
	second := first.With(zap.Object("entry", counted{&times}), zap.Int("try", 1))
	second.Debug("nothing")
	g.Expect(times).To(BeZero())
	second.Info("well")
	second.Info("again", zap.Bool("late", true))
	first.Info("alone")
	g.Expect(times).To(Equal(1))
	g.Expect(out.String()).To(Equal(`{"msg":"well","kind":"CacheEntry","entry":{},"try":1}
{"msg":"again","kind":"CacheEntry","entry":{},"try":1,"late":true}
{"msg":"alone","kind":"CacheEntry"}
`))
}
