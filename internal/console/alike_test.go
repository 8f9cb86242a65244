package console_test

import (
	"html"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/persqld/persqld/internal/console"
)

// of is the page of one statement with one parameter.
func of(sql, value string) *console.ApprovalPage {
	p := pending()
	p.Statements = []console.Statement{{SQL: sql, Params: []console.Param{{Value: text(value)}}}}
	return p
}

const doubt = "This may not be what it reads as:"

// Letters that pass for others are marked, and the page says so above all.
func TestLettersThatPassForOthers(t *testing.T) {
	for sql, want := range map[string]string{
		"DELETE FROM usеrs":                   "DELETE FROM usеU+0435 Cyrillicrs",
		"DELETE FROM `аudit`":                 "DELETE FROM `аU+0430 Cyrillicudit`",
		"DELETE FROM [lоg]":                   "DELETE FROM [lоU+043E Cyrillicg]",
		`DELETE FROM "pαy"`:                   `DELETE FROM "pαU+03B1 Greeky"`,
		"WHERE name = 'pаypal'":               "WHERE name = 'pаU+0430 Cyrillicypal'",
		"x -- аudit\nFROM t":                  "x -- аU+0430 Cyrillicudit\nFROM t",
		"x /* 'аudit */ FROM usеrs":           "x /* 'аU+0430 Cyrillicudit */ FROM usеU+0435 Cyrillicrs",
		"DELETE FROM асе":                     "DELETE FROM аU+0430 CyrillicсU+0441 CyrillicеU+0435 Cyrillic", // of twins alone
		"DELETE FROM log_а":                   "DELETE FROM log_аU+0430 Cyrillic",
		"DELETE FROM а_1":                     "DELETE FROM аU+0430 Cyrillic_1",
		"DELETE FROM ꓮꓓ":                      "DELETE FROM ꓮU+A4EE LisuꓓU+A4D3 Lisu",
		"DELETE FROM ｕsers":                   "DELETE FROM ｕU+FF55 fullwidthsers",
		"DELETE FROM 𝐮sers":                   "DELETE FROM 𝐮U+1D42E mathematicalsers",
		"DELETE FROM loɡ":                     "DELETE FROM loɡU+0261 another form",
		"DELETE FROM t²":                      "DELETE FROM t²U+00B2 another form",
		"WHERE a = ‘x’ OR 1":                  "WHERE a = ‘U+2018 a sign in a namex’U+2019 a sign in a name OR 1",
		"WHERE a = 1\u037e DROP TABLE t":      "WHERE a = 1\u037eU+037E a sign in a name DROP TABLE t",
		"WHERE a = −1":                        "WHERE a = −U+2212 a sign in a name1",
		"DELETE FROM u\u200bsеrs":             "DELETE FROM uU+200BsеU+0435 Cyrillicrs", // what can't be seen doesn't end a word
		"DELETE FROM ραсе":                    "DELETE FROM ραсU+0441 CyrillicеU+0435 Cyrillic",
		"SELECT 'it''s pаy', 'ok' FROM usеrs": "SELECT 'it''s pаU+0430 Cyrillicy', 'ok' FROM usеU+0435 Cyrillicrs",
		"x = 'us\u200bе\u200brs'":             "x = 'usU+200BеU+0435 CyrillicU+200Brs'",
		"SELECT 'абв' || 'a":                  "SELECT 'абв' || 'a",
	} {
		page := rendered(t, of(sql, "x"))
		if got := seen(page); !strings.Contains(got, want) {
			t.Errorf("%q isn't shown as %q: %s", sql, want, got)
		}
		if doubtful := sql != "SELECT 'абв' || 'a"; strings.Contains(page, doubt) != doubtful {
			t.Errorf("%q: the page says that it isn't what it reads as: %v", sql, !doubtful)
		}
	}
}

// Another language is no attack, be it in a value, in a string, in a comment or in a name.
func TestOtherLanguagesAreNotMarked(t *testing.T) {
	for _, sql := range []string{
		"INSERT INTO t VALUES('日本語のテキスト、ABCとカタカナ。', '한국어 SQL데이터', '中文（测试）；「好」')", "UPDATE Tシャツ SET 名前 = 'Tシャツ', ID番号 = 1", "SELECT 'Ελληνικά', 'русский текст', 'сахар и SQL-запрос', 'العربية', 'עברית', 'ไทย'",
		"UPDATE straße SET größe = 'naïve café', čaj = 'Łódź', kayıt = 'ığdır', tên = 'Việt Nam'", "DELETE FROM журнал -- удалить всё", "SELECT * FROM πελάτης", "SELECT '5 μs, 10 kΩ, Δt, 20 µm, nº 5, m², “quoted”, don’t, a – b, 👍🏽'",
		"SELECT 'x' AS имя, \"Füße\" FROM таблица_2 /* все строки */", "SELECT 'ǅ', 'ﬁne'", "SELECT 'e\u0301'",
	} {
		p := of(sql, "Пример: 日本語 и café")
		p.Rules = []console.Rule{{Glob: "журнал_*", Tables: []string{"журнал_1"}, Note: "Спросите у Анны (SQL) – 営業部", MaxRows: -1}}
		if page := rendered(t, p); strings.Contains(page, "<mark") || strings.Contains(page, doubt) {
			t.Errorf("%q is marked: %s", sql, seen(page))
		}
	}
}

// Everything that a stranger names is looked at, and what can't be seen counts too.
func TestDoubtIsSaid(t *testing.T) {
	for name, change := range map[string]func(p *console.ApprovalPage){
		"a parameter":        func(p *console.ApprovalPage) { p.Statements = of("x", "pаypal").Statements },
		"a parameter's name": func(p *console.ApprovalPage) { p.Statements[0].Params[0].Name = ":nаme" },
		"a rule's pattern":   func(p *console.ApprovalPage) { p.Rules[0].Glob = "prоd_*" },
		"a rule's table":     func(p *console.ApprovalPage) { p.Rules[0].Tables = []string{"prоd"} },
		"a rule's note":      func(p *console.ApprovalPage) { p.Rules[0].Note = "аll good" },
		"the token":          func(p *console.ApprovalPage) { p.Requester.Token = "аdmin" },
		"who made it":        func(p *console.ApprovalPage) { p.Requester.Maker = "асе@example.com" },
		"a reason":           func(p *console.ApprovalPage) { p.Decisions[0].Reason = "gооd" },
		"the database":       func(p *console.ApprovalPage) { p.Database = "shоp" },
		"a call": func(p *console.ApprovalPage) {
			p.Statements, p.Call = nil, &console.Call{Title: "Restore", Details: []console.Detail{{Name: "to", Value: "snаp"}}}
		},
		"what isn't seen": func(p *console.ApprovalPage) { p.Statements = of("DELETE FROM t\u202e", "x").Statements },
		"no UTF-8":        func(p *console.ApprovalPage) { p.Statements = of("DELETE FROM t\xff", "x").Statements },
	} {
		p := pending()
		if page := rendered(t, p); strings.Contains(page, doubt) {
			t.Fatal("it is said of a plain page")
		}
		change(p)
		if page := rendered(t, p); !strings.Contains(page, doubt) {
			t.Errorf("%s: nothing is said", name)
		}
	}
	p := of("DELETE FROM usеrs WHERE а\u200b = 1", "x")
	if got := seen(rendered(t, p)); !strings.Contains(got, "it has 2 characters of another alphabet or form than the word around and 1 character that can't be seen. Each is in a box, with its number.") {
		t.Error(got)
	}
}

// FuzzMarksKeepTheText: whatever is marked, nothing of a text is lost, moved or added but the marks.
func FuzzMarksKeepTheText(f *testing.F) {
	for _, sql := range []string{"DELETE FROM usеrs -- ‘x’ /* \"", "'it''s' [а] `ｂ` \"г", "ꓮ𝐮²ª日本Tシャツ", "u\u200bsеrs", "--\n/*'*/'", "[", "'", "αa\u0301б"} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 2_000 {
			return
		}
		var plain strings.Builder // what is shown as it is, whatever else there is
		for _, r := range strings.ToValidUTF8(sql, "") {
			if unicode.IsPrint(r) && r != ' ' && !unicode.IsMark(r) {
				plain.WriteRune(r)
			}
		}
		for _, p := range []*console.ApprovalPage{of(sql, "x"), of("x", sql)} {
			page := rendered(t, p)
			_, rest, _ := strings.Cut(page, "<pre")
			_, rest, _ = strings.Cut(rest, "<code>")
			shown, _, _ := strings.Cut(rest, "</code>")
			if p.Statements[0].SQL == "x" {
				_, rest, _ = strings.Cut(page, `<span class="value text">`)
				if sql == "" {
					continue
				}
				shown, _, _ = strings.Cut(rest, "</dd>")
				shown, _, _ = strings.Cut(shown, `<span class="cut">`)
				if len([]rune(sql)) > 500 {
					continue
				}
			}
			shown = notes.ReplaceAllString(shown, "")
			var got strings.Builder
			for _, r := range html.UnescapeString(tags.ReplaceAllString(shown, "")) {
				if r != ' ' && r != '\n' && r != '\t' && !unicode.IsMark(r) {
					got.WriteRune(r)
				}
			}
			if want := plain.String(); !hidden.MatchString(want) && got.String() != want {
				t.Errorf("%q is shown as %q, want %q", sql, got.String(), want)
			}
		}
	})
}

var (
	// notes are what stands beside and in the place of characters.
	notes = regexp.MustCompile(`<small>[^<]*</small>|<span class="odd"[^>]*>[^<]*</span>`)
	// hidden are letters and signs that show nothing, which stand as their numbers.
	hidden = regexp.MustCompile(`[\x{115f}\x{1160}\x{2800}\x{3164}\x{ffa0}\x{1d159}\x{fffd}]`)
)
