// Copyright The cachewright Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"image/color"
	"math"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// plotData are lines to be drawn.
type plotData struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	X      axis   `json:"x"`
	Y      axis   `json:"y"`
	Series []line `json:"series"`
}

type axis struct {
	Label string `json:"label"`
	Log   bool   `json:"log"`
}

type line struct {
	Name   string       `json:"name"`
	Dots   bool         `json:"dots"`
	Dashed bool         `json:"dashed"`
	Steps  bool         `json:"steps"`
	Points [][2]float64 `json:"points"`
}

func init() { plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"} }

const width, height, margin = 9 * vg.Inch, 4 * vg.Inch, vg.Length(10)

// colors that people who see few of them can tell apart, too: https://jfly.uni-koeln.de/color/.
var colors = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff},
	color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff},
	color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
	color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
	color.RGBA{R: 0x55, G: 0x55, B: 0x55, A: 0xff},
}

// draw a plot, as SVG for the page, and as PNG if somebody wants to look at it without a browser.
func draw(p plotData, file string, png bool) error {
	c := plot.New()
	c.Title.Text, c.Title.Padding = p.Title, vg.Points(10)
	c.X.Label.Text, c.Y.Label.Text = p.X.Label, p.Y.Label
	c.X.Padding, c.Y.Padding = 0, 0
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{Y: 0xe0}, color.Gray{Y: 0xe0}
	c.Add(grid)
	c.Legend.Top, c.Legend.Left, c.Legend.Padding = true, true, vg.Points(3)
	for i, series := range p.Series {
		if err := add(c, p, series, colors[i%len(colors)]); err != nil {
			return err
		}
	}
	scale(&c.X, p.X)
	scale(&c.Y, p.Y)
	if png {
		if err := save(c, vgimg.PngCanvas{Canvas: vgimg.New(width, height)}, file+".png"); err != nil {
			return err
		}
	}
	return save(c, vgsvg.New(width, height), file+".svg")
}

// save a plot with its legend beside it, where it hides no line.
func save(c *plot.Plot, on vg.CanvasWriterTo, file string) error {
	area := vgdraw.NewCanvas(on, width, height)
	area.SetColor(color.White)
	area.Fill(area.Rectangle.Path())
	area = vgdraw.Crop(area, margin, -margin, margin, -margin)
	legend := c.Legend
	c.Legend = plot.NewLegend()
	wide := legend.Rectangle(area).Size().X + margin
	c.Draw(vgdraw.Crop(area, 0, -wide, 0, 0))
	legend.Draw(vgdraw.Crop(area, area.Max.X-area.Min.X-wide+margin, 0, 0, -vg.Points(30)))
	c.Legend = legend
	var image bytes.Buffer
	if _, err := on.WriteTo(&image); err != nil {
		return err
	}
	// The font is one that few have; Arial has letters of the same size.
	const family = "font-family:Liberation Sans"
	return os.WriteFile(file, bytes.ReplaceAll(image.Bytes(), []byte(family+";"), []byte(family+",Arial,Helvetica,sans-serif;")), 0o644)
}

// add a line, with its name in the legend.
func add(c *plot.Plot, p plotData, series line, in color.Color) error {
	points := make(plotter.XYs, len(series.Points))
	for i, point := range series.Points {
		points[i] = plotter.XY{X: p.X.at(point[0]), Y: p.Y.at(point[1])}
	}
	drawn, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	if series.Steps {
		drawn.StepStyle = plotter.PostStep
	}
	drawn.Color, drawn.Width, dots.Color, dots.Shape = in, vg.Points(1.5), in, vgdraw.CircleGlyph{}
	if series.Dashed {
		drawn.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	}
	c.Add(drawn)
	if series.Dots {
		c.Add(dots)
	}
	c.Legend.Add(series.Name, drawn)
	return nil
}

// at is where a value stands on an axis. The logarithm is taken here, since gonum's own scale leaves room for the label of
// its axis where it is not.
func (a axis) at(v float64) float64 {
	if a.Log {
		return math.Log10(v)
	}
	return v
}

// scale an axis. One that is not logarithmic begins at zero.
func scale(a *plot.Axis, as axis) {
	if as.Log {
		a.Tick.Marker = plot.TickerFunc(decades)
		return
	}
	a.Min, a.Tick.Marker = 0, plot.TickerFunc(round)
}

// round numbers between two values, five to ten of them.
func round(least, most float64) (marks []plot.Tick) {
	magnitude := math.Pow(10, math.Floor(math.Log10(most-least)))
	step := magnitude
	for _, part := range []float64{0.5, 0.2} {
		if (most-least)/step < 5 {
			step = part * magnitude
		}
	}
	for v := math.Ceil(least/step) * step; v <= most; v += step {
		marks = append(marks, plot.Tick{Value: v, Label: short(v)})
	}
	return marks
}

// decades between two logarithms. Where there are few, 2 and 5 have labels, too.
func decades(least, most float64) (marks []plot.Tick) {
	for decade := math.Floor(least); decade <= most; decade++ {
		for digit := 1.; digit < 10; digit++ {
			v := digit * math.Pow(10, decade)
			mark := plot.Tick{Value: math.Log10(v)}
			if mark.Value < least || mark.Value > most {
				continue
			}
			if digit == 1 || most-least < 3 && (digit == 2 || digit == 5) {
				mark.Label = short(v)
			}
			marks = append(marks, mark)
		}
	}
	return marks
}

// short numbers are read at a glance: 10k instead of 10000.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return number(v/1e6) + "M"
	case v >= 1e4:
		return number(v/1e3) + "k"
	default:
		return number(v)
	}
}
