# The book of the lessons, and the page that shows what a query attends to.
.PHONY: book attention check-book

# README.md and the lessons as a site, in out/book/; SOLUTIONS=no: without solutions, to hand out.
book: $(B)/kit
	@KIT=$(B)/kit SOLUTIONS=$(SOLUTIONS) lessons/book/make_book.sh out/book

# Trains full and top-k attention and writes out/attention.html, in about a minute.
attention: $(B)/attention
	@$(B)/attention --out out/attention.html
$(B)/attention: $(call object,lessons/05-semantic-focus/attention.cpp) $(B)/libfocus.a
	$(LINK)

# Opens every page of the book in a browser without a window.
check-book: $(B)/kit $(B)/attention
	@KIT=$(B)/kit ATTENTION=$(B)/attention lessons/book/check_book.sh
