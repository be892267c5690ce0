// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"testing"

	"github.com/cachewright/cachewright/internal/testing/redistest"
)

func TestMain(m *testing.M) {
	defer redistest.StopShared()
	m.Run()
}
